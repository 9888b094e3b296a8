//! How much room each sequence gets in the caches, and how many fit: level by level, shortest first.
//!
//! All slots are of one length, the level. Most responses are far shorter than the longest allowed, so room for the longest
//! would be mostly empty and few would fit. Instead the level begins low and is raised when sequences have filled their
//! slots: at once, where nobody loses a place by it, else when the others are done. Meanwhile the full ones are put aside, and
//! later run again from their tokens. Since a level is twice the one before, that is about every token once more, as in a
//! prompt. Numbers only: no tensor and no sequence is known here.

/// What bounds the caches of a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Most sequences at a time.
    pub(super) sequences: usize,
    /// Most tokens of all slots together; a single slot may always be as long as the longest sequence.
    pub(super) tokens: usize,
    /// Tokens of the longest possible sequence.
    pub(super) longest: usize,
}

/// Sequences of a call that are not finished.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unfinished {
    /// In slots.
    pub(super) active: usize,
    /// For a free slot.
    pub(super) waiting: usize,
    /// For a higher level.
    pub(super) aside: usize,
}

impl Unfinished {
    fn all(self) -> usize {
        self.active + self.waiting + self.aside
    }
}

impl Limits {
    /// The level above `level`.
    pub(super) fn above(&self, level: usize) -> usize {
        (2 * level).min(self.longest)
    }

    /// Slots of a level, for so many sequences.
    pub(super) fn slots(&self, level: usize, sequences: usize) -> usize {
        (self.tokens / level.max(1)).clamp(1, self.sequences).min(sequences)
    }

    /// Whether to go to the level above, now that a sequence has filled its slot or was put aside.
    pub(super) fn is_time(&self, level: usize, unfinished: Unfinished) -> bool {
        let all = unfinished.all();
        let slots = self.slots(self.above(level), all);
        // Either everyone keeps a place, or those that are left have one and nobody waits for the level there is.
        slots >= all.min(self.sequences) || (unfinished.waiting == 0 && unfinished.active <= slots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_double_up_to_the_longest_and_slots_fill_the_room() {
        let limits = Limits { sequences: 256, tokens: 620_000, longest: 32_512 };
        let mut level = 1536;
        let mut found = vec![(level, limits.slots(level, 256))];
        while level < limits.longest {
            level = limits.above(level);
            found.push((level, limits.slots(level, 256)));
        }
        // 620,000 / 3,072 = 201.8, / 6,144 = 100.9, / 12,288 = 50.5, / 24,576 = 25.2, / 32,512 = 19.07.
        assert_eq!(found, [(1536, 256), (3072, 201), (6144, 100), (12_288, 50), (24_576, 25), (32_512, 19)]);
        assert_eq!(limits.slots(1536, 7), 7, "no more than there are sequences");
        let tight = Limits { tokens: 100, ..limits };
        assert_eq!(tight.slots(32_512, 5), 1, "one always");
    }

    #[test]
    fn a_level_is_raised_when_nobody_loses_a_place_or_the_others_are_done() {
        let limits = Limits { sequences: 8, tokens: 1600, longest: 1000 };
        let is_time = |active, waiting, aside| limits.is_time(200, Unfinished { active, waiting, aside });
        // Four fit above.
        assert!(is_time(4, 0, 0));
        assert!(!is_time(8, 0, 0) && !is_time(5, 0, 3) && !is_time(5, 0, 0));
        assert!(is_time(4, 0, 4), "those that are left fit, the rest follows");
        assert!(!is_time(2, 3, 0), "someone waits who may need no more than there is");
        assert!(is_time(0, 0, 8));
        let wide = Limits { tokens: 10_000, ..limits };
        assert!(wide.is_time(200, Unfinished { active: 8, waiting: 30, aside: 0 }), "all keep their place");
    }
}
