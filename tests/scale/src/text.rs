//! Numbers for people.

/// A number with two or three digits that count.
pub fn number(value: f64) -> String {
    let trimmed = |value: f64, digits: usize| {
        let text = format!("{value:.digits$}");
        let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
        text.to_owned()
    };
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 1e15 => format!("{value:.1e}"),
        size if size >= 999_500_000.0 => format!("{} G", number(value / 1e9)),
        size if size >= 999_500.0 => format!("{} M", number(value / 1e6)),
        size if size >= 1_000.0 => thousands(value),
        size if size >= 100.0 => trimmed(value, 0),
        size if size >= 10.0 => trimmed(value, 1),
        size if size >= 0.095 => trimmed(value, 2),
        _ => trimmed(value, 3),
    }
}

/// Three digits that count, and commas; small whole numbers as they are.
fn thousands(value: f64) -> String {
    let scale = 10_f64.powf((value.log10().floor() - 2.0).max(0.0));
    let rounded = if value < 10_000.0 { value.round() } else { (value / scale).round() * scale };
    let digits = format!("{rounded:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A share of something that should be in use by a part only.
pub fn percent(share: f64) -> String {
    match share * 100.0 {
        percent if percent >= 10.0 => format!("{} %", thousands_or(percent.round())),
        percent if percent >= 1.0 => format!("{percent:.0} %"),
        _ => "< 1 %".to_owned(),
    }
}

fn thousands_or(value: f64) -> String {
    if value >= 1_000.0 { thousands(value) } else { format!("{value:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, expected) in [
            (0.0, "0"),
            (0.084, "0.084"),
            (0.5, "0.5"),
            (13.4, "13.4"),
            (104.0, "104"),
            (1_234.0, "1,234"),
            (10_000.0, "10,000"),
            (16_667.0, "16,700"),
            (166_700.0, "167,000"),
            (1_666_700.0, "1.67 M"),
            (2e9, "2 G"),
        ] {
            assert_eq!(number(value), expected);
        }
        assert_eq!(
            (percent(0.004), percent(0.05), percent(12.5)),
            ("< 1 %".into(), "5 %".into(), "1,250 %".into())
        );
    }
}
