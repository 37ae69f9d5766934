//! The query string of an Engine.IO request.

use std::borrow::Cow;

/// What a query says to Engine.IO. As in the reference, the last of several values of a key counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query<'a> {
    /// True for `EIO=4`.
    pub is_v4: bool,
    /// `transport`.
    pub transport: Option<Cow<'a, str>>,
    /// `sid`, if it is not empty.
    pub sid: Option<Cow<'a, str>>,
}

impl<'a> Query<'a> {
    /// Reads a query string, without its `?`.
    pub fn parse(query: &'a str) -> Self {
        if query.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
            return Self::of(form_urlencoded::parse(query.as_bytes()));
        }
        // Nothing is encoded in what stock clients send with every request.
        Self::of(pairs(query).map(|(key, value)| (key.into(), value.into())))
    }

    fn of(pairs: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>) -> Self {
        let mut parsed = Self::default();
        for (key, value) in pairs {
            match &*key {
                "EIO" => parsed.is_v4 = value == "4",
                "transport" => parsed.transport = Some(value),
                "sid" => parsed.sid = (!value.is_empty()).then_some(value),
                _ => {}
            }
        }
        parsed
    }
}

/// Keys and values as they stand there.
fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = Some(query);
    std::iter::from_fn(move || {
        let (pair, more) = cut(rest?, b'&');
        rest = more;
        let (key, value) = cut(pair, b'=');
        Some((key, value.unwrap_or_default()))
    })
}

/// What is before the first of these (ASCII) bytes, and what is after it. The texts are short: a search for long ones, as
/// `str::split` has it, costs more than it saves.
fn cut(text: &str, at: u8) -> (&str, Option<&str>) {
    match text.bytes().position(|byte| byte == at) {
        Some(end) => (&text[..end], Some(&text[end + 1..])),
        None => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_concerns_engine_io() {
        let query = Query::parse("EIO=4&transport=pol%6cing&sid=&t=x&b64=1");
        assert_eq!(query, Query { is_v4: true, transport: Some("polling".into()), sid: None });
        assert!(!Query::parse("EIO=3&EIO=44").is_v4);
        assert_eq!(Query::parse("sid=a&sid=b").sid.as_deref(), Some("b"));
        assert_eq!(Query::parse("%zz&=&&=1"), Query::default());
    }

    #[test]
    fn what_is_not_encoded_reads_as_what_is() {
        for query in [
            "EIO=4&transport=polling&sid=a-_b",
            "sid=a=b&EIO",
            "&&sid",
            "sid=\u{e9}&\u{20ac}",
            "transport=&EIO=4&transport=x",
            "=4",
        ] {
            assert_eq!(Query::parse(query), Query::parse(&format!("%61=1&{query}&b=+")), "{query}");
        }
    }
}
