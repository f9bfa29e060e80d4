// SPDX-License-Identifier: EUPL-1.2
//! The nodes that are offered to the store for a room, in order of preference.
//!
//! What a replica knows of the use of nodes is a second old and lacks what others placed since; so it only orders the list. A node that
//! seems full comes last, and what is really free the store decides.

use std::collections::BTreeMap;

use super::{CHOICES_MAX, Candidate, NoNode, Recent, Strategy, Unfit, Wish, load, may_run, tier};
use crate::ids::{NodeId, Uid};
use crate::quota::{self, Usage};

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
    tier: usize,
    load: u64,
    seems_full: bool,
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
    let best = fits
        .iter()
        .map(|fit| (fit.seems_full, fit.tier))
        .min()
        .ok_or(none)?;
    if question.refused.is_empty() {
        let (best_full, best_tier) = best;
        fits.retain(|fit| best_full || fit.tier == best_tier);
    }
    match question.strategy {
        Strategy::Spread => shuffle(&mut fits, question.seed),
        Strategy::Pack => fits.sort_by(|a, b| {
            let key = |fit: &Fit<'_>| (fit.seems_full, fit.tier, std::cmp::Reverse(fit.load));
            key(a)
                .cmp(&key(b))
                .then_with(|| a.candidate.node.cmp(&b.candidate.node))
        }),
    }
    let held = |fit: &Fit<'_>| Some(&fit.candidate.node) != question.held;
    // Stable: within each group the order from above stays.
    fits.sort_by_key(|fit| (held(fit), fit.seems_full, fit.tier));
    fits.truncate(CHOICES_MAX);
    let of_one_site = fits
        .first()
        .is_some_and(|first| fits.iter().all(|fit| fit.tier == first.tier));
    Ok(Shortlist {
        choices: fits.into_iter().map(|fit| fit.candidate).collect(),
        strategy: if of_one_site {
            question.strategy
        } else {
            Strategy::Pack
        },
    })
}

fn judge<'a>(question: &Question<'_>, candidate: &'a Candidate) -> Fit<'a> {
    let used = candidate.used.plus(question.recent.on(&candidate.node));
    let full =
        |used: Usage| quota::check_node(&candidate.capacity, used, question.wish.amount).is_err();
    Fit {
        candidate,
        tier: tier(question.wish, candidate),
        load: load(&candidate.capacity, used),
        seems_full: question.recent.has_refused(&candidate.node) || full(used),
    }
}

/// Puts nodes in a random order of which the first places matter: the pair that is compared, then what is tried when both are full.
fn shuffle(fits: &mut [Fit<'_>], seed: u64) {
    let mut random = SplitMix(seed);
    for index in 0..fits.len() {
        let left = (fits.len() - index) as u64;
        // Even to within one part in 2^64 of the number of nodes.
        let step = (u128::from(random.next()) * u128::from(left)) >> 64;
        fits.swap(index, index + step as usize);
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
