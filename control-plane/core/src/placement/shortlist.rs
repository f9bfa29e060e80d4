// SPDX-License-Identifier: EUPL-1.2
//! The nodes that are offered to the store for a room, in order of preference.
//!
//! What a replica knows of the use of nodes is a second old and lacks what others placed since; so it only orders the list. A node that
//! seems full comes last, and what is really free the store decides.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::{CHOICES_MAX, Candidate, NoNode, Recent, Strategy, Unfit, Wish, load, may_run, tier};
use crate::ids::{NodeId, Uid};
use crate::quota::{self, Usage};
use crate::record::Capacity;

/// What a list is made of.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// What the room asks for.
    pub wish: &'a Wish,
    /// How rooms are laid out.
    pub strategy: Strategy,
    /// The node that holds capacity for this room.
    pub held: Option<&'a NodeId>,
    /// Nodes that refused already, with what they said.
    pub refused: &'a BTreeMap<Uid, Unfit>,
    /// What this replica placed lately.
    pub recent: &'a Recent,
    /// Randomness; the same number and inputs give the same list.
    pub seed: u64,
}

/// Nodes to choose from, in order; at least one.
#[derive(Clone, Debug)]
pub struct Shortlist<'a> {
    /// Nodes.
    pub choices: Vec<&'a Candidate>,
    /// How the store chooses: `Spread` the less loaded of the first two that fit, `Pack` the first that fits.
    pub strategy: Strategy,
}

/// A node that may take the room.
struct Fit<'a> {
    candidate: &'a Candidate,
    rank: Rank,
    load: u64,
    weight: u64,
}

/// Groups of nodes, the first to be asked first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    holds_nothing: bool,
    seems_full: bool,
    tier: usize,
}

/// Lists nodes for a room.
///
/// The first list holds nodes of the most preferred site with room alone, so that no other site wins by being less loaded. Once nodes have
/// refused, further sites follow in their order.
///
/// # Errors
/// [`NoNode`].
pub fn plan_join<'a>(
    question: &Question<'_>,
    candidates: &'a [Candidate],
) -> Result<Shortlist<'a>, NoNode> {
    let mut none = NoNode::default();
    let mut fits: Vec<Fit<'a>> = Vec::with_capacity(candidates.len());
    for candidate in candidates {
        let fit = match question.refused.get(&candidate.uid) {
            Some(unfit) => Err(*unfit),
            None => may_run(question.wish, candidate),
        };
        match fit {
            Ok(()) => fits.push(judge(question, candidate)),
            Err(unfit) => none.count(unfit),
        }
    }
    if fits.is_empty() {
        return Err(none);
    }
    let others = fits.iter().map(|fit| fit.rank);
    let best = others.filter(|rank| rank.holds_nothing).min();
    if question.refused.is_empty()
        && let Some(best) = best.filter(|best| !best.seems_full)
    {
        fits.retain(|fit| !fit.rank.holds_nothing || fit.rank.tier == best.tier);
    }
    // Stable, and cheap where all are alike, as nearly always.
    fits.sort_by_key(|fit| fit.rank);
    match question.strategy {
        Strategy::Spread => draw(&mut fits, question.seed),
        Strategy::Pack => fits.sort_by(|a, b| {
            let key = |fit: &Fit<'_>| (fit.rank, Reverse(fit.load));
            key(a)
                .cmp(&key(b))
                .then_with(|| a.candidate.node.cmp(&b.candidate.node))
        }),
    }
    fits.truncate(CHOICES_MAX);
    let of_one_site = fits
        .first()
        .is_some_and(|first| fits.iter().all(|fit| fit.rank.tier == first.rank.tier));
    Ok(Shortlist {
        choices: fits.into_iter().map(|fit| fit.candidate).collect(),
        strategy: if of_one_site {
            question.strategy
        } else {
            Strategy::Pack
        },
    })
}

/// Why no node took the room, after the last list: each one by its filter or by what it said; those that were never asked are counted as
/// such.
#[must_use]
pub fn tally(question: &Question<'_>, candidates: &[Candidate]) -> NoNode {
    let mut none = NoNode::default();
    for candidate in candidates {
        match question.refused.get(&candidate.uid) {
            Some(unfit) => none.count(*unfit),
            None => match may_run(question.wish, candidate) {
                Ok(()) => none.unasked = none.unasked.saturating_add(1),
                Err(unfit) => none.count(unfit),
            },
        }
    }
    none
}

fn judge<'a>(question: &Question<'_>, candidate: &'a Candidate) -> Fit<'a> {
    let used = candidate.used.plus(question.recent.on(&candidate.node));
    let amount = question.wish.amount;
    let full = || quota::check_node(&candidate.capacity, used, amount).is_err();
    Fit {
        candidate,
        rank: Rank {
            holds_nothing: question.held != Some(&candidate.node),
            seems_full: question.recent.has_refused(&candidate.node) || full(),
            tier: tier(question.wish, candidate),
        },
        load: load(&candidate.capacity, used),
        weight: weight(&candidate.capacity, amount),
    }
}

/// How many such rooms an empty node takes. Two even draws would not do where capacities differ: a few large nodes would hardly ever be
/// drawn, and the small ones fill up beside them.
fn weight(capacity: &Capacity, amount: Usage) -> u64 {
    let times = |max: u64, one: u64| max.checked_div(one).unwrap_or(u64::MAX);
    times(capacity.rooms.into(), amount.rooms.into())
        .min(times(
            capacity.participants.into(),
            amount.participants.into(),
        ))
        .min(times(
            u64::from(capacity.egress_mbps) * 1_000,
            amount.egress_kbps,
        ))
        .clamp(1, WEIGHT_MAX)
}

/// Keeps sums of weights within 64 bits.
const WEIGHT_MAX: u64 = 1 << 32;

/// Draws the first places, each from what is left of the first group by capacity: the pair that is compared, then what is tried when both
/// are full.
fn draw(fits: &mut [Fit<'_>], seed: u64) {
    let mut random = SplitMix(seed);
    let mut start = 0;
    while start < fits.len().min(CHOICES_MAX) {
        let rank = fits[start].rank;
        let end = start + fits[start..].partition_point(|fit| fit.rank == rank);
        let mut left: u64 = fits[start..end].iter().map(|fit| fit.weight).sum();
        for place in start..end.min(CHOICES_MAX) {
            // Even to within one part in 2^64 of the sum.
            let mut mark = ((u128::from(random.next()) * u128::from(left)) >> 64) as u64;
            let drawn = fits[place..end].iter().position(|fit| {
                let here = mark < fit.weight;
                mark = mark.saturating_sub(fit.weight);
                here
            });
            let drawn = place + drawn.unwrap_or_default();
            left = left.saturating_sub(fits[drawn].weight);
            fits.swap(place, drawn);
        }
        start = end;
    }
}

/// *Source*: Steele, Lea, Flood: Fast splittable pseudorandom number generators.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
