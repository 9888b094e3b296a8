//! Numbers as people read them: thousands grouped, percentages with a sign where they are changes.

/// `value` rounded to a whole number with commas between thousands: `12,345`. Not-a-number and infinities become `–`.
pub fn grouped(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let digits = format!("{:.0}", value.abs());
    let mut text = String::with_capacity(digits.len() * 4 / 3 + 1);
    if value < 0.0 && digits != "0" {
        text.push('−');
    }
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A share in [0, 1] as a percentage with `decimals` digits: `93.4 %`.
pub fn percent(share: f64, decimals: usize) -> String {
    if share.is_finite() { format!("{:.decimals$} %", share * 100.0) } else { "–".to_owned() }
}

/// A change as a percentage with its sign: `−61.0 %`, `+2.5 %`; a change that rounds to nothing is `±0.0 %`.
pub fn signed_percent(change: f64, decimals: usize) -> String {
    if change.is_finite() { format!("{} %", signed(change * 100.0, decimals)) } else { "–".to_owned() }
}

/// A number with its sign and `decimals` digits: `+1.2`, `−0.3`, `±0.0`.
pub fn signed(value: f64, decimals: usize) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let text = format!("{:.decimals$}", value.abs());
    let sign = if text.bytes().all(|byte| matches!(byte, b'0' | b'.')) {
        '±'
    } else if value < 0.0 {
        '−'
    } else {
        '+'
    };
    format!("{sign}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        let cases = [
            (0.0, "0"),
            (-0.4, "0"),
            (999.4, "999"),
            (999.6, "1,000"),
            (1_234_567.0, "1,234,567"),
            (-12_345.0, "−12,345"),
            (f64::NAN, "–"),
        ];
        for (value, text) in cases {
            assert_eq!(grouped(value), text);
        }
    }

    #[test]
    fn changes_carry_a_sign() {
        assert_eq!(percent(0.9344, 1), "93.4 %");
        assert_eq!(signed_percent(-0.61, 1), "−61.0 %");
        assert_eq!(signed_percent(0.025, 1), "+2.5 %");
        assert_eq!(signed_percent(-0.0001, 1), "±0.0 %");
        assert_eq!(signed(f64::INFINITY, 1), "–");
    }
}
