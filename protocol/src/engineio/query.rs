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
        let mut parsed = Self::default();
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
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
}
