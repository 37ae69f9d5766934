//! Patterns of room names. Owns matching them, in time bounded by the product of the lengths: rooms come from clients.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

/// A pattern: `*` matches any text, `{name}` one or more characters other than `:`, everything else itself.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct RoomPattern {
    text: String,
    tokens: Vec<Token>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Literal(char),
    /// `*`
    Anything,
    /// `{name}`
    Segment,
}

impl From<&str> for RoomPattern {
    fn from(text: &str) -> Self {
        let mut tokens = Vec::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            rest = &rest[c.len_utf8()..];
            match (c, rest.find('}')) {
                ('*', _) => tokens.push(Token::Anything),
                ('{', Some(end)) => {
                    tokens.push(Token::Segment);
                    rest = &rest[end + 1..];
                }
                _ => tokens.push(Token::Literal(c)),
            }
        }
        Self { text: text.to_owned(), tokens }
    }
}

impl RoomPattern {
    /// Whether the whole name matches.
    pub fn matches(&self, room: &str) -> bool {
        // Every place in the pattern that the text so far can have led to.
        let mut places = vec![false; self.tokens.len() + 1];
        let mut next = places.clone();
        places[0] = true;
        self.skip_anything(&mut places);
        for c in room.chars() {
            next.fill(false);
            for (at, token) in self.tokens.iter().enumerate().filter(|(at, _)| places[*at]) {
                match token {
                    Token::Literal(literal) => next[at + 1] |= *literal == c,
                    Token::Anything => next[at] = true,
                    Token::Segment if c == ':' => {}
                    Token::Segment => {
                        next[at] = true;
                        next[at + 1] = true;
                    }
                }
            }
            self.skip_anything(&mut next);
            std::mem::swap(&mut places, &mut next);
        }
        places[self.tokens.len()]
    }

    /// `*` may match nothing.
    fn skip_anything(&self, places: &mut [bool]) {
        for (at, token) in self.tokens.iter().enumerate() {
            if places[at] && *token == Token::Anything {
                places[at + 1] = true;
            }
        }
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for RoomPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl Serialize for RoomPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl schemars::JsonSchema for RoomPattern {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RoomPattern".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string" })
    }
}

impl<'de> Deserialize<'de> for RoomPattern {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self::from(text.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_the_whole_name() {
        let cases = [
            ("lobby", vec!["lobby"], vec!["lobb", "lobby1", ""]),
            ("*", vec!["", "a", "a:b"], vec![]),
            ("order:{id}", vec!["order:1", "order:é"], vec!["order:", "order:1:2", "border:1"]),
            ("{a}:{b}", vec!["x:y"], vec!["x", "x:", ":y", "x:y:z"]),
            ("a*b*c", vec!["abc", "axxbyyc", "abcbc"], vec!["ab", "acb"]),
            ("*:{id}", vec!["a:b:c", ":x"], vec!["a:"]),
            ("a{b", vec!["a{b"], vec!["ab"]),
        ];
        for (pattern, yes, no) in cases {
            let pattern = RoomPattern::from(pattern);
            assert!(yes.iter().all(|room| pattern.matches(room)), "{pattern:?} {yes:?}");
            assert!(!no.iter().any(|room| pattern.matches(room)), "{pattern:?} {no:?}");
        }
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        assert!(!RoomPattern::from("*a".repeat(30).as_str()).matches(&"a".repeat(2_000).replace("aa", "ab")));
        assert!(!RoomPattern::from("{x}".repeat(40).as_str()).matches(&format!("{}:", "a".repeat(2_000))));
    }
}
