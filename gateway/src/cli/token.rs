//! `roomcast token`: makes tokens to try things out with, and shows what is in one.

use std::io::Read as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use clap::{Args, Subcommand};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value, json};

use super::remote::CliError;
use crate::config::Secret;

/// What to do with tokens.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Token {
    /// Make a token
    Make(Make),
    /// Show what is in a token; its signature is not checked
    Inspect {
        /// The token, or "-" to read it from standard input
        token: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// A token to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct Make {
    /// Who it is for: the claim "sub"
    #[arg(long, value_name = "USER")]
    sub: Option<String>,
    /// How long it is valid
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    ttl: Duration,
    /// Any other claim: the value is JSON, or else a text
    #[arg(long = "claim", value_name = "NAME=VALUE")]
    claims: Vec<String>,
    /// The algorithm [default: HS256 with --secret, by the kind of key with --key-file]
    #[arg(long, value_name = "HS256|RS256|ES256|EdDSA")]
    algorithm: Option<String>,
    /// The shared secret for HS256: itself, env:NAME or file:PATH
    #[arg(long, value_name = "SECRET", required_unless_present = "key_file", conflicts_with = "key_file")]
    secret: Option<String>,
    /// A private key in PEM: PKCS #8
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// The key's id, for issuers with several
    #[arg(long, value_name = "ID")]
    kid: Option<String>,
}

fn usage(error: impl std::fmt::Display) -> CliError {
    CliError::Usage(error.to_string())
}

/// `roomcast token`.
pub(super) fn token(token: &Token) -> Result<String, CliError> {
    match token {
        Token::Make(make) => make.token(now()),
        Token::Inspect { token, json } => {
            let mut text = token.clone();
            if text == "-" {
                text.clear();
                std::io::stdin().read_to_string(&mut text)?;
            }
            inspect(text.trim(), *json, now())
        }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Make {
    fn token(&self, now: u64) -> Result<String, CliError> {
        let mut claims = Map::new();
        if let Some(sub) = &self.sub {
            claims.insert("sub".to_owned(), json!(sub));
        }
        claims.insert("iat".to_owned(), json!(now));
        claims.insert("exp".to_owned(), json!(now + self.ttl.as_secs()));
        for claim in &self.claims {
            let (name, value) = claim.split_once('=').ok_or_else(|| usage("a claim is NAME=VALUE"))?;
            let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
            claims.insert(name.to_owned(), value);
        }
        let (algorithm, key) = self.key()?;
        let mut header = Header::new(algorithm);
        header.kid.clone_from(&self.kid);
        jsonwebtoken::encode(&header, &claims, &key).map_err(usage)
    }

    fn key(&self) -> Result<(Algorithm, EncodingKey), CliError> {
        let named = self.algorithm.as_deref().map(str::parse::<Algorithm>).transpose().map_err(usage)?;
        if let Some(secret) = &self.secret {
            let secret = Secret::resolved(secret)?;
            return Ok((
                named.unwrap_or(Algorithm::HS256),
                EncodingKey::from_secret(secret.expose().as_bytes()),
            ));
        }
        let path = self.key_file.as_ref().ok_or_else(|| usage("give --secret or --key-file"))?;
        let pem = std::fs::read(path)?;
        let keys = [
            (Algorithm::RS256, EncodingKey::from_rsa_pem(&pem)),
            (Algorithm::ES256, EncodingKey::from_ec_pem(&pem)),
            (Algorithm::EdDSA, EncodingKey::from_ed_pem(&pem)),
        ];
        let fits = |algorithm| named.is_none_or(|named| named == algorithm);
        let key = keys
            .into_iter()
            .find_map(|(algorithm, key)| Some((algorithm, key.ok().filter(|_| fits(algorithm))?)));
        key.ok_or_else(|| usage(format!("{}: this is no private key for the algorithm", path.display())))
    }
}

fn inspect(token: &str, as_json: bool, now: u64) -> Result<String, CliError> {
    let parts: Vec<_> = token.split('.').collect();
    let &[header, claims, _] = parts.as_slice() else {
        return Err(usage("this is no JWT: three parts with dots"));
    };
    let decode = |part: &str| -> Result<Value, CliError> {
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).map_err(usage)?;
        serde_json::from_slice(&bytes).map_err(usage)
    };
    let (header, claims) = (decode(header)?, decode(claims)?);
    if as_json {
        return Ok(json!({ "header": header, "claims": claims }).to_string());
    }
    let mut lines = vec![format!("header   {header}")];
    for (name, value) in claims.as_object().into_iter().flatten() {
        let when = match name.as_str() {
            "exp" | "nbf" | "iat" => value.as_u64().map(|time| relative(time, now)).unwrap_or_default(),
            _ => String::new(),
        };
        lines.push(format!("{name:<8} {value}{when}"));
    }
    lines.push("the signature was not checked".to_owned());
    Ok(lines.join("\n"))
}

fn relative(time: u64, now: u64) -> String {
    let distance = humantime::format_duration(Duration::from_secs(time.abs_diff(now)));
    if time < now { format!("  ({distance} ago)") } else { format!("  (in {distance})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_was_made_says_what_it_was_made_of() {
        let make = Make {
            sub: Some("u7".into()),
            ttl: Duration::from_secs(60),
            claims: vec!["admin=true".into(), "name=Ada".into()],
            secret: Some("0123456789abcdef0123456789abcdef".into()),
            kid: Some("k1".into()),
            ..Make::default()
        };
        let token = make.token(1_000).unwrap();
        let shown: Value = serde_json::from_str(&inspect(&token, true, 1_000).unwrap()).unwrap();
        assert_eq!(shown["header"], json!({ "typ": "JWT", "alg": "HS256", "kid": "k1" }));
        assert_eq!(
            shown["claims"],
            json!({ "sub": "u7", "iat": 1_000, "exp": 1_060, "admin": true, "name": "Ada" })
        );
        let people = inspect(&token, false, 1_000).unwrap();
        assert!(people.contains("exp      1060  (in 1m)") && people.contains("not checked"), "{people}");
    }

    #[test]
    fn what_makes_no_token_is_said() {
        let make = Make { secret: Some("s".into()), ..Make::default() };
        assert!(Make { claims: vec!["x".into()], ..make.clone() }.token(0).is_err());
        assert!(Make { algorithm: Some("HS257".into()), ..make }.token(0).is_err());
        assert!(inspect("a.b", false, 0).is_err() && inspect("a.b.c", false, 0).is_err());
    }
}
