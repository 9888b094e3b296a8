//! How long each tier takes at this moment, as far as was measured lately.
//!
//! An answer takes its wait and then so many seconds a token. The wait is that of whoever asks next, whatever tier it asks
//! for: the queue before the engine is one for all, and the tiers of one place are computed by the same engine. Both are
//! remembered for as long as they say something about this moment: a burst that is over is forgotten within seconds, and a
//! tier that was slow once is taken to be like its neighbours again, so that it is tried and measured again.

use std::collections::BTreeMap;
use std::time::Duration;

use super::CatalogueTier;
use super::fading::Fading;

/// In so many seconds without a measurement half of a wait beyond the idle one is forgotten.
const WAIT_HALF_LIFE: f64 = 3.0;
/// In so many seconds half of what sets a tier apart from the others of its place is forgotten.
const TIER_HALF_LIFE: f64 = 10.0;
/// In so many seconds half of what sets a place apart from the family is forgotten: another machine stays another machine,
/// and yet one that had a bad hour is tried again.
const PLACE_HALF_LIFE: f64 = 300.0;

/// Speed of one tier.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speed {
    /// Seconds from the request to its first token, waiting included.
    pub seconds_to_first_token: f64,
    /// Seconds between two tokens.
    pub seconds_per_token: f64,
}

impl Speed {
    /// What is assumed before anything was measured: half a second, then 50 tokens a second.
    pub const ASSUMED: Self = Self { seconds_to_first_token: 0.5, seconds_per_token: 0.02 };

    /// Expected seconds until an answer of `tokens` tokens is complete.
    pub fn seconds(&self, tokens: f64) -> f64 {
        self.seconds_to_first_token + (tokens - 1.0).max(0.0) * self.seconds_per_token
    }
}

/// Whose generation was measured, and when.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample<'a> {
    /// Name of the tier.
    pub tier: &'a str,
    /// Where it is computed: [`CatalogueTier::place`].
    pub place: &'a str,
    /// Its share of its request, in (0, 1]: one of so many choices, which tell the same thing.
    pub weight: f64,
    /// Time since some moment that is the same for all samples.
    pub at: Duration,
}

/// What was measured of one place.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Place {
    /// Seconds from the place before the engine to the first token.
    first: Option<Fading>,
    /// The least of them: what is left of it while nobody else computes.
    idle: f64,
    /// Seconds a token.
    pace: Option<Fading>,
}

/// Means of what was measured, recent measurements first; times are averaged, not rates, because times add up.
///
/// Values and times come in as arguments, so the same measurements in the same order always give the same means.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Speeds {
    queue: Option<Fading>,
    pace: Option<Fading>,
    places: BTreeMap<String, Place>,
    tiers: BTreeMap<String, Fading>,
}

impl Speeds {
    /// Notes how long a request waited for its turn, before any engine saw it.
    pub fn queued(&mut self, waited: Duration, at: Duration) {
        self.queue = Some(Fading::with(self.queue, (waited.as_secs_f64(), 1.0), 0.0, at, WAIT_HALF_LIFE));
    }

    /// Notes a first token: how long it took once the request had its turn.
    pub fn first_token(&mut self, sample: Sample<'_>, first: Duration) {
        let seconds = first.as_secs_f64();
        let place = self.places.entry(sample.place.to_owned()).or_default();
        place.idle = if place.first.is_some() { place.idle.min(seconds) } else { seconds };
        let measured = (seconds, sample.weight);
        place.first = Some(Fading::with(place.first, measured, place.idle, sample.at, WAIT_HALF_LIFE));
    }

    /// Notes a finished generation: the time from its first token to its last, and how many tokens there were. Of fewer than
    /// two nothing is learned.
    pub fn generated(&mut self, sample: Sample<'_>, generation: Duration, tokens: usize) {
        if tokens < 2 {
            return;
        }
        let measured = (generation.as_secs_f64() / (tokens - 1) as f64, sample.weight);
        let family = self.family_pace();
        let at_place = self.pace_at(sample.place, sample.at);
        let tier = self.tiers.get(sample.tier).copied();
        let tier = Fading::with(tier, measured, at_place, sample.at, TIER_HALF_LIFE);
        self.tiers.insert(sample.tier.to_owned(), tier);
        let place = self.places.entry(sample.place.to_owned()).or_default();
        place.pace = Some(Fading::with(place.pace, measured, family, sample.at, PLACE_HALF_LIFE));
        // Towards itself: what the family did last stays the best guess.
        self.pace = Some(Fading::with(self.pace, measured, family, sample.at, PLACE_HALF_LIFE));
    }

    /// What is to be expected at the moment `now`, on the clock of the samples.
    pub fn at(&self, now: Duration) -> Outlook<'_> {
        Outlook { speeds: self, now }
    }

    /// Tokens a second of one stream of `tier`, as it was measured last; `None` before the first.
    pub fn tokens_per_second(&self, tier: &str) -> Option<f64> {
        self.tiers.get(tier).map(|pace| 1.0 / pace.last()).filter(|speed| speed.is_finite())
    }

    /// Seconds from the turn of a request to its first token.
    fn first_at(&self, place: &str, now: Duration) -> f64 {
        let known = |place: &Place| place.first.map(|first| (first, place.idle));
        match self.places.get(place).and_then(known) {
            Some((first, idle)) => first.now(idle, now, WAIT_HALF_LIFE),
            // Nobody has asked there: as quick as the others where they idle.
            None => self
                .places
                .values()
                .filter_map(known)
                .map(|(_, idle)| idle)
                .reduce(f64::min)
                .unwrap_or(Speed::ASSUMED.seconds_to_first_token),
        }
    }

    /// Seconds a token of the whole family.
    fn family_pace(&self) -> f64 {
        self.pace.map_or(Speed::ASSUMED.seconds_per_token, |pace| pace.last())
    }

    /// Seconds a token of a tier that was never measured there.
    fn pace_at(&self, place: &str, now: Duration) -> f64 {
        let family = self.family_pace();
        let pace = self.places.get(place).and_then(|place| place.pace);
        pace.map_or(family, |pace| pace.now(family, now, PLACE_HALF_LIFE))
    }
}

/// [`Speeds`] at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Outlook<'a> {
    speeds: &'a Speeds,
    now: Duration,
}

impl Outlook<'_> {
    /// Speed of `tier` for a request that comes now. Its wait is that of its place. Its pace is its own, and the older that
    /// is, the more that of its place, and then that of the family (tiers of one family are the same network, so they run
    /// alike). Before anything was measured, [`Speed::ASSUMED`].
    pub fn of(&self, tier: &CatalogueTier) -> Speed {
        let Self { speeds, now } = *self;
        let queue = speeds.queue.map_or(0.0, |queue| queue.now(0.0, now, WAIT_HALF_LIFE));
        let at_place = speeds.pace_at(&tier.place, now);
        let own = speeds.tiers.get(&tier.name);
        Speed {
            seconds_to_first_token: queue + speeds.first_at(&tier.place, now),
            seconds_per_token: own.map_or(at_place, |own| own.now(at_place, now, TIER_HALF_LIFE)),
        }
    }
}

#[cfg(test)]
#[path = "speed_tests.rs"]
mod tests;
