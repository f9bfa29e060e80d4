// SPDX-License-Identifier: EUPL-1.2
//! A minute of 5 % loss, 2 % reordering and 1 % duplication on both legs, with layers switched all the time. A failure names its
//! seed; `PLENUM_SIM_SEED=…` runs that one alone.

use std::time::Duration;

use media_core::api::Codec;
use media_sim::random::Random;
use media_sim::world::{Weather, World};

const SECOND: Duration = Duration::from_secs(1);

fn seeds() -> Vec<u64> {
    match std::env::var("PLENUM_SIM_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
    {
        Some(seed) => vec![seed],
        None => vec![1, 2, 3, 4],
    }
}

/// A minute of rough weather with `layers` layers; the wish changes every three seconds when there are several.
fn minute(seed: u64, codec: Codec, layers: usize) {
    println!("seed {seed}, {codec:?}, {layers} layers");
    let mut world = World::new(seed);
    let mut wishes = Random::new(seed);
    let (publisher, subscriber) = (world.join(), world.join());
    world.open();
    let track = world.publish(publisher, codec, layers);
    world.run(SECOND);
    let subscription = world.subscribe(subscriber, track);
    world.run(2 * SECOND);
    world.weather(Weather::ROUGH);
    let mut switched = 0;
    for _ in 0..20 {
        if layers > 1 {
            let (before, wish) = (
                world.forwarded(subscription),
                wishes.below(layers as u64) as u8,
            );
            world.wish(subscription, true, wish, u8::MAX);
            world.run(3 * SECOND);
            switched += usize::from(before != world.forwarded(subscription));
            assert_eq!(
                world.forwarded(subscription),
                Some(wish),
                "seed {seed}: the wish came through"
            );
        } else {
            world.run(3 * SECOND);
        }
    }
    world.weather(Weather::CLEAR);
    world.run(SECOND);
    let sent = world.captures(subscription);
    let received = world.received(subscription);
    let what = format!(
        "seed {seed}, {codec:?}, {layers} layers: {} of {sent} frames, {received:?}",
        received.frames
    );
    assert!(received.frames as u64 * 100 >= sent * 99, "{what}");
    assert!(
        received.longest_pause <= Duration::from_millis(500),
        "{what}"
    );
    assert_eq!(
        (
            received.timestamp_errors,
            received.picture_errors,
            received.capture_errors
        ),
        (0, 0, 0),
        "{what}"
    );
    assert!(received.gaps * 200 <= received.packets as u64, "{what}");
    assert!(layers == 1 || switched >= 8, "{what}: {switched} switches");
}

#[test]
fn vp8_in_one_layer_survives_a_minute_of_rough_weather() {
    seeds()
        .into_iter()
        .for_each(|seed| minute(seed, Codec::Vp8, 1));
}

#[test]
fn vp8_simulcast_survives_a_minute_of_rough_weather_and_switches() {
    seeds()
        .into_iter()
        .for_each(|seed| minute(seed, Codec::Vp8, 3));
}

#[test]
fn h264_in_one_layer_survives_a_minute_of_rough_weather() {
    seeds()
        .into_iter()
        .for_each(|seed| minute(seed, Codec::H264, 1));
}

#[test]
fn h264_simulcast_survives_a_minute_of_rough_weather_and_switches() {
    seeds()
        .into_iter()
        .for_each(|seed| minute(seed, Codec::H264, 3));
}

#[test]
fn vp9_and_av1_survive_a_minute_of_rough_weather() {
    seeds()
        .into_iter()
        .for_each(|seed| minute(seed, Codec::Vp9, 1));
    seeds()
        .into_iter()
        .for_each(|seed| minute(seed, Codec::Av1, 1));
}

#[test]
fn opus_survives_a_minute_of_rough_weather() {
    seeds()
        .into_iter()
        .for_each(|seed| minute(seed, Codec::Opus, 1));
}

#[test]
fn redundant_audio_survives_a_minute_of_rough_weather() {
    seeds()
        .into_iter()
        .for_each(|seed| minute(seed, Codec::Red, 1));
}
