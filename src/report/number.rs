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

/// The value with `decimals` digits: `0.1141`, `−0.0021`; what rounds to nothing has no sign.
pub fn decimal(value: f64, decimals: usize) -> String {
    match signed(value, decimals) {
        text if text.starts_with(['+', '±']) => text.chars().skip(1).collect(),
        text => text,
    }
}

/// The value to one significant digit, without an exponent: `0.05`, `20`.
pub fn round(value: f64) -> String {
    // Through the shortest text of the rounded number, which has no tail of binary digits.
    format!("{value:.0e}").parse::<f64>().map_or_else(|_| "–".to_owned(), |round| round.to_string())
}

/// The value to two significant digits, with an exponent: `2.5e-3`, `1e-5`, `0`.
pub fn scientific(value: f64) -> String {
    if value == 0.0 { "0".to_owned() } else { format!("{value:.1e}").replace(".0e", "e").replace('-', "−") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_have_a_sign_only_below_nothing() {
        assert_eq!(
            [0.11409, -0.0021, -0.00001, 0.0].map(|value| decimal(value, 4)),
            ["0.1141", "−0.0021", "0.0000", "0.0000"]
        );
        assert_eq!(decimal(f64::NAN, 4), "–");
    }

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

    #[test]
    fn ticks_have_no_binary_tails() {
        assert_eq!(
            (round(0.050_000_000_000_01), round(19.999_999), round(1.0)),
            ("0.05".into(), "20".into(), "1".into())
        );
        assert_eq!([0.0025, 0.00001, 0.0, 0.001_500_000_000_1].map(scientific), ["2.5e−3", "1e−5", "0", "1.5e−3"]);
    }
}
