//! The limits that make every grading end soon, whatever text it is given.
//!
//! One [`Budget`] lives as long as one comparison of two answers; the parser and the evaluators count their steps in it.
//! Nothing here looks at a clock, so the same texts always get the same verdict.

use num_bigint::BigInt;
use num_rational::BigRational;

/// Longest answer, in bytes, that is normalised and parsed; a longer one is no answer.
pub(super) const MAX_ANSWER_BYTES: usize = 2048;
/// Deepest nesting of brackets, arguments and exponents.
const MAX_DEPTH: u32 = 48;
/// Largest numerator or denominator, in bits, that is computed exactly.
pub(super) const MAX_BITS: u64 = 2048;
/// Steps one comparison may take. A step is a node visited, or the product of two machine words.
pub(super) const MAX_STEPS: u32 = 50_000;

/// Why two expressions could not be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Undecided {
    /// Steps, depth or number size ran out.
    Budget,
    /// A text is not an expression that the parser knows.
    Unparsable,
    /// An expression has no value: a division by zero, the factorial of a fraction.
    Undefined,
}

/// What is left of the limits.
#[derive(Debug)]
pub(super) struct Budget {
    steps: u32,
    depth: u32,
    /// How often somebody asked for steps, granted or refused: work goes on as long as somebody asks.
    #[cfg(test)]
    asked: u32,
}

impl Budget {
    /// A full budget.
    pub(super) fn new() -> Self {
        Self {
            steps: MAX_STEPS,
            depth: 0,
            #[cfg(test)]
            asked: 0,
        }
    }

    /// How often steps were asked for.
    #[cfg(test)]
    pub(super) fn asked(&self) -> u32 {
        self.asked
    }

    /// Takes `steps` steps, or fails when fewer are left; from then on everything fails.
    pub(super) fn spend(&mut self, steps: usize) -> Result<(), Undecided> {
        #[cfg(test)]
        {
            self.asked += 1;
        }
        match u32::try_from(steps).ok().and_then(|steps| self.steps.checked_sub(steps)) {
            Some(left) => {
                self.steps = left;
                Ok(())
            }
            None => {
                self.steps = 0;
                Err(Undecided::Budget)
            }
        }
    }

    /// Runs `work` one level deeper and counts it as one step. Levels that `work` entered and, failing, never left are
    /// left for it.
    pub(super) fn deeper<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, Undecided>) -> Result<T, Undecided> {
        let depth = self.depth;
        self.enter()?;
        let result = work(self);
        self.depth = depth;
        result
    }

    /// The first half of [`Budget::deeper`], for callers that cannot lend the budget to a closure.
    pub(super) fn enter(&mut self) -> Result<(), Undecided> {
        self.spend(1)?;
        if self.depth >= MAX_DEPTH {
            return Err(Undecided::Budget);
        }
        self.depth += 1;
        Ok(())
    }

    /// Ends what a successful [`Budget::enter`] began.
    pub(super) fn leave(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }

    /// Pays for one operation on two exact numbers, or fails when either is too large to go on with.
    pub(super) fn arithmetic(&mut self, a: &BigRational, b: &BigRational) -> Result<(), Undecided> {
        let (a, b) = (bits(a), bits(b));
        if a.max(b) > MAX_BITS {
            return Err(Undecided::Budget);
        }
        let words = |bits: u64| usize::try_from(bits / 64 + 1).unwrap_or(usize::MAX);
        // Reducing a fraction is quadratic in its words; that dominates every operation.
        let words = words(a).saturating_add(words(b));
        self.spend(words.saturating_mul(words))
    }
}

/// Bits of the larger of numerator and denominator.
pub(super) fn bits(value: &BigRational) -> u64 {
    let size = |part: &BigInt| part.bits();
    size(value.numer()).max(size(value.denom()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spending_more_than_is_left_empties_the_budget() {
        let mut budget = Budget::new();
        assert_eq!(budget.spend(10), Ok(()));
        assert_eq!(budget.spend(usize::MAX), Err(Undecided::Budget));
        assert_eq!(budget.spend(1), Err(Undecided::Budget));
    }

    #[test]
    fn depth_is_limited_and_given_back() {
        fn dive(budget: &mut Budget, levels: u32) -> Result<(), Undecided> {
            if levels == 0 { Ok(()) } else { budget.deeper(|budget| dive(budget, levels - 1)) }
        }
        let mut budget = Budget::new();
        assert_eq!(dive(&mut budget, MAX_DEPTH), Ok(()));
        assert_eq!(dive(&mut budget, MAX_DEPTH + 1), Err(Undecided::Budget));
        assert_eq!(dive(&mut budget, MAX_DEPTH), Ok(()));
    }

    #[test]
    fn exact_numbers_are_capped() {
        let mut budget = Budget::new();
        let small = BigRational::from_integer(BigInt::from(7));
        let large = BigRational::from_integer(BigInt::from(1) << 5000u32);
        assert_eq!(budget.arithmetic(&small, &small), Ok(()));
        assert_eq!(budget.arithmetic(&small, &large), Err(Undecided::Budget));
    }
}
