// SPDX-License-Identifier: EUPL-1.2
//! Reading a client's description.

use std::io::Cursor;

use media_core::api::{
    Codec, Encoding, ExtensionMap, Fingerprint, Format, IceCredentials, Kind, PayloadBinding,
};
use media_core::ids::{ExtensionId, PayloadType, Ssrc};
use rtc_sdp::description::media::MediaDescription;
use rtc_sdp::description::session::SessionDescription;

use super::{
    ATTRIBUTES_MAX, Description, Direction, EXTENSIONS, FORMATS_MAX, SDP_BYTES_MAX, SECTIONS_MAX,
    SdpError, Section, extension_field,
};

/// A format from `rtpmap` and `fmtp`; `None` for what is not forwarded.
fn format(name: &str, fmtp: &str) -> Option<(Format, u32)> {
    let parameter = |wanted: &str| {
        fmtp.split(';').find_map(|part| {
            let (key, value) = part.trim().split_once('=')?;
            key.eq_ignore_ascii_case(wanted)
                .then(|| value.trim().to_ascii_lowercase())
        })
    };
    let video = |codec, variant| Some((Format { codec, variant }, 90_000));
    match name.to_ascii_lowercase().as_str() {
        "opus" => Some((
            Format {
                codec: Codec::Opus,
                variant: 0,
            },
            48_000,
        )),
        "red" if fmtp.contains('/') => Some((
            Format {
                codec: Codec::Red,
                variant: 0,
            },
            48_000,
        )),
        "vp8" => video(Codec::Vp8, 0),
        "vp9" if parameter("profile-id").is_none_or(|id| id == "0") => video(Codec::Vp9, 0),
        "av1" if parameter("profile").is_none_or(|profile| profile == "0") => video(Codec::Av1, 0),
        "h264" if parameter("packetization-mode").as_deref() == Some("1") => {
            let profile = parameter("profile-level-id").unwrap_or_else(|| "42e01f".to_owned());
            match profile.get(..4)? {
                "42e0" => video(Codec::H264, 0),
                "4200" => video(Codec::H264, 1),
                "4d00" => video(Codec::H264, 2),
                _ => None,
            }
        }
        _ => None,
    }
}

fn attribute<'a>(section: &'a MediaDescription, key: &str) -> Option<&'a str> {
    section
        .attributes
        .iter()
        .find(|attribute| attribute.key == key)
        .map(|attribute| attribute.value.as_deref().unwrap_or(""))
}

fn values<'a>(section: &'a MediaDescription, key: &'a str) -> impl Iterator<Item = &'a str> {
    section
        .attributes
        .iter()
        .filter(move |attribute| attribute.key == key)
        .filter_map(|a| a.value.as_deref())
}

fn fingerprint(text: &str) -> Option<Fingerprint> {
    let (algorithm, hex) = text.split_once(' ')?;
    if !algorithm.eq_ignore_ascii_case("sha-256") {
        return None;
    }
    let mut bytes = [0; 32];
    let mut parts = hex.trim().split(':');
    for byte in &mut bytes {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(Fingerprint(bytes))
}

impl Description {
    /// Reads an offer or answer.
    ///
    /// # Errors
    /// [`SdpError`].
    pub fn parse(text: &str) -> Result<Self, SdpError> {
        if text.len() > SDP_BYTES_MAX {
            return Err(SdpError::TooLarge);
        }
        let session = SessionDescription::unmarshal(&mut Cursor::new(text.as_bytes()))
            .map_err(|_| SdpError::Malformed)?;
        let long = |media: &MediaDescription| {
            media.attributes.len() > ATTRIBUTES_MAX || media.media_name.formats.len() > FORMATS_MAX
        };
        if session.media_descriptions.len() > SECTIONS_MAX
            || session.media_descriptions.iter().any(long)
        {
            return Err(SdpError::TooLarge);
        }
        let global = |key: &str| session.attribute(key).map(String::as_str);
        let find = |key: &str| {
            global(key).or_else(|| {
                session
                    .media_descriptions
                    .iter()
                    .find_map(|media| attribute(media, key))
            })
        };
        let ice = match (find("ice-ufrag"), find("ice-pwd")) {
            (Some(ufrag), Some(password))
                if (4..=256).contains(&ufrag.len()) && (22..=256).contains(&password.len()) =>
            {
                IceCredentials {
                    ufrag: ufrag.to_owned(),
                    password: password.to_owned(),
                }
            }
            _ => return Err(SdpError::NoCredentials),
        };
        let fingerprint = session
            .attributes
            .iter()
            .chain(
                session
                    .media_descriptions
                    .iter()
                    .flat_map(|media| &media.attributes),
            )
            .filter(|attribute| attribute.key == "fingerprint")
            .find_map(|attribute| fingerprint(attribute.value.as_deref()?))
            .ok_or(SdpError::NoFingerprint)?;
        let sections = session
            .media_descriptions
            .iter()
            .map(Section::parse)
            .collect();
        Ok(Self {
            ice,
            fingerprint,
            sections,
        })
    }
}

impl Section {
    fn parse(media: &MediaDescription) -> Self {
        let kind = match media.media_name.media.as_str() {
            "audio" => Some(Kind::Audio),
            "video" => Some(Kind::Video),
            _ => None,
        };
        let has = |key: &str| attribute(media, key).is_some();
        let direction = Direction {
            send: !has("recvonly") && !has("inactive"),
            receive: !has("sendonly") && !has("inactive"),
        };
        let fmtp = |wanted: u8| {
            values(media, "fmtp")
                .find_map(|line| {
                    line.split_once(' ')
                        .filter(|(id, _)| id.parse() == Ok(wanted))
                        .map(|(_, text)| text)
                })
                .unwrap_or("")
        };
        let mut payloads: Vec<PayloadBinding> = Vec::new();
        let mut formats = Vec::new();
        let mut retransmissions = Vec::new();
        for id in media
            .media_name
            .formats
            .iter()
            .filter_map(|id| id.parse::<u8>().ok())
            .filter(|id| *id < 128)
            .take(128)
        {
            let Some(map) = values(media, "rtpmap").find_map(|line| {
                line.split_once(' ')
                    .filter(|(number, _)| number.parse() == Ok(id))
                    .map(|(_, map)| map)
            }) else {
                continue;
            };
            let name = map.split('/').next().unwrap_or("");
            if name.eq_ignore_ascii_case("rtx") {
                if let Some(of) = fmtp(id)
                    .trim()
                    .strip_prefix("apt=")
                    .and_then(|of| of.parse::<u8>().ok())
                {
                    retransmissions.push((of, id));
                }
            } else if let Some((format, clock_rate)) = format(name, fmtp(id)) {
                payloads.push(PayloadBinding {
                    payload_type: PayloadType(id),
                    format,
                    rtx: None,
                    clock_rate,
                });
                formats.push((id, fmtp(id).to_owned()));
            }
        }
        payloads.truncate(media_core::limits::PAYLOADS_MAX);
        for (of, rtx) in retransmissions {
            if let Some(binding) = payloads
                .iter_mut()
                .find(|binding| binding.payload_type.0 == of)
            {
                binding.rtx = Some(PayloadType(rtx));
            }
        }
        let mut extensions = ExtensionMap::NONE;
        let mut extension_lines = Vec::new();
        for line in values(media, "extmap") {
            let mut words = line.split(' ');
            let id = words
                .next()
                .and_then(|id| id.split('/').next()?.parse::<u8>().ok());
            let uri = words.next();
            if let (Some(id @ 1..=255), Some(index)) =
                (id, EXTENSIONS.iter().position(|known| Some(*known) == uri))
            {
                *extension_field(&mut extensions, index) = ExtensionId(id);
                extension_lines.push((id, index as u8));
            }
        }
        let msid = attribute(media, "msid").map(|value| {
            let (stream, track) = value.split_once(' ').unwrap_or((value, ""));
            (stream.to_owned(), track.to_owned())
        });
        Self {
            kind,
            rejected: media.media_name.port.value == 0 && !has("bundle-only"),
            mid: attribute(media, "mid").unwrap_or("").to_owned(),
            direction,
            payloads,
            extensions,
            extension_lines,
            formats,
            encodings: encodings(media),
            msid,
        }
    }
}

/// SSRCs of a group of `semantics`.
fn group(media: &MediaDescription, semantics: &str) -> Vec<Vec<u32>> {
    values(media, "ssrc-group")
        .filter_map(|line| {
            let (name, rest) = line.split_once(' ')?;
            (name == semantics).then(|| {
                rest.split(' ')
                    .filter_map(|ssrc| ssrc.parse().ok())
                    .take(8)
                    .collect()
            })
        })
        .take(8)
        .collect()
}

/// Layers from low to high: by RID where simulcast says so, by a `SIM` group of SSRCs where that says so, else the first SSRC; each
/// SSRC with its FID partner.
fn encodings(media: &MediaDescription) -> Vec<Encoding> {
    let mut rids: Vec<&str> = values(media, "rid")
        .filter_map(|line| {
            let mut words = line.split(' ');
            let rid = words.next()?;
            (words.next() == Some("send")).then_some(rid)
        })
        .filter(|rid| !rid.is_empty() && rid.len() <= 16)
        .take(media_core::limits::ENCODINGS_MAX)
        .collect();
    if !rids.is_empty() && attribute(media, "simulcast").is_some_and(|value| value.contains("send"))
    {
        // LiveKit's names have an order; others are taken in the order of the description.
        let rank = |rid: &str| ["q", "h", "f"].iter().position(|known| *known == rid);
        if rids.iter().all(|rid| rank(rid).is_some()) {
            rids.sort_by_key(|rid| rank(rid));
        }
        return rids
            .into_iter()
            .map(|rid| Encoding {
                rid: Some(rid.to_owned()),
                ..Encoding::default()
            })
            .collect();
    }
    let repairs = group(media, "FID");
    let encoding = |ssrc: u32| Encoding {
        rid: None,
        ssrc: Some(Ssrc(ssrc)),
        rtx_ssrc: repairs
            .iter()
            .find(|pair| pair.first() == Some(&ssrc))
            .and_then(|pair| pair.get(1))
            .map(|rtx| Ssrc(*rtx)),
    };
    if let Some(layers) = group(media, "SIM")
        .into_iter()
        .find(|layers| !layers.is_empty())
    {
        return layers
            .into_iter()
            .take(media_core::limits::ENCODINGS_MAX)
            .map(encoding)
            .collect();
    }
    let first = repairs
        .first()
        .and_then(|pair| pair.first().copied())
        .or_else(|| {
            values(media, "ssrc").find_map(|line| line.split(' ').next()?.parse::<u32>().ok())
        });
    vec![first.map_or_else(Encoding::default, encoding)]
}
