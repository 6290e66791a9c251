//! Who may call: bearer tokens from a file, of which several are valid at once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::status::CallError;
use super::watched::{FileError, Watched};

/// Characters that a token has, at least: shorter ones can be guessed.
const MIN_TOKEN_CHARS: usize = 16;
/// Tokens that a file has, at most; each call is compared with all of them.
const MAX_TOKENS: usize = 1_000;
/// What stands before the hexadecimal SHA-256 of a token that the file does not tell.
const HASH_PREFIX: &str = "sha256:";
const SCHEME: &str = "Bearer";
/// What asks only whether the server, or a model of it, is there.
const HEALTH: [&str; 4] = [
    "/grpc.health.v1.Health/",
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
    "/inference.GRPCInferenceService/ModelReady",
];

/// Who must show a token.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct AuthConfig {
    /// A file of one token a line, `NAME TOKEN` or `NAME sha256:HEX`; `#` begins a comment. One
    /// name may have several tokens, so that one can be replaced while both are valid. `None`:
    /// anybody who reaches the server may call it.
    pub tokens_file: Option<PathBuf>,
    /// Whether health checks need no token: those of gRPC, and the Open Inference Protocol's.
    pub open_health: bool,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self { tokens_file: None, open_health: true }
    }
}

/// Decides who may call.
pub(crate) struct Access {
    tokens: Option<Watched<Tokens>>,
    open_health: bool,
}

/// The valid tokens. Only their hashes are kept.
#[derive(Debug, PartialEq, Eq)]
struct Tokens(Vec<Token>);

#[derive(Debug, PartialEq, Eq)]
struct Token {
    name: Arc<str>,
    hash: [u8; 32],
}

/// Whether a call of `path` asks only whether the server, or a model of it, is there.
pub(crate) fn asks_health(path: &str) -> bool {
    HEALTH.iter().any(|health| path.starts_with(health))
}

impl Access {
    /// Reads the tokens.
    ///
    /// # Errors
    /// The file cannot be read, or a line of it is not a token.
    pub(crate) fn load(config: &AuthConfig) -> Result<Self, FileError> {
        let watch = |file: &PathBuf| {
            warn_if_open(file);
            let name = file.clone();
            Watched::load(vec![file.clone()], move |contents| {
                let content = contents.first().map(Vec::as_slice).unwrap_or_default();
                Tokens::parse(content).map_err(|problem| FileError::new(&name, problem))
            })
        };
        let tokens = config.tokens_file.as_ref().map(watch).transpose()?;
        Ok(Self { tokens, open_health: config.open_health })
    }

    /// The name of the caller of `path`, as its token says; `None` if it needs none.
    ///
    /// # Errors
    /// There is no token where one is needed, or it is not valid.
    pub(crate) fn check(
        &self,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Option<Arc<str>>, CallError> {
        let Some(tokens) = &self.tokens else { return Ok(None) };
        if self.open_health && asks_health(path) {
            return Ok(None);
        }
        let Some(value) = headers.get(AUTHORIZATION) else {
            return Err(CallError::Unauthenticated { problem: "is missing" });
        };
        let not_bearer = CallError::Unauthenticated { problem: "is not a bearer token" };
        let token = value.to_str().ok().and_then(|value| value.split_once(' '));
        let Some((scheme, token)) = token else { return Err(not_bearer) };
        if !scheme.eq_ignore_ascii_case(SCHEME) {
            return Err(not_bearer);
        }
        let name = tokens.get().name_of(token.trim());
        name.map(Some).ok_or(CallError::Unauthenticated { problem: "holds no valid token" })
    }

    /// Reads the tokens again if they have changed.
    pub(crate) fn refresh(&self) {
        if let Some(tokens) = &self.tokens {
            tokens.refresh();
        }
    }
}

impl Tokens {
    fn parse(content: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(content).map_err(|_| "it is not UTF-8".to_owned())?;
        let mut tokens = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            // The line is not quoted: it holds a secret.
            let token =
                Token::parse(line).map_err(|problem| format!("line {}: {problem}", index + 1))?;
            tokens.push(token);
        }
        match tokens.len() {
            0 => Err("it has no token".to_owned()),
            1..=MAX_TOKENS => Ok(Self(tokens)),
            actual => Err(format!("it has {actual} tokens; the limit is {MAX_TOKENS}")),
        }
    }

    /// Compares with every token, in a time that does not depend on which one it is.
    fn name_of(&self, token: &str) -> Option<Arc<str>> {
        let hash = sha256(token);
        let mut found = None;
        for valid in &self.0 {
            if bool::from(valid.hash.ct_eq(&hash)) {
                found = Some(&valid.name);
            }
        }
        found.cloned()
    }
}

impl Token {
    fn parse(line: &str) -> Result<Self, String> {
        let mut words = line.split_whitespace();
        let (Some(name), Some(token), None) = (words.next(), words.next(), words.next()) else {
            return Err("expected NAME TOKEN, or NAME sha256:HEX".to_owned());
        };
        let hash = match token.strip_prefix(HASH_PREFIX) {
            Some(hex) => parse_hash(hex)
                .ok_or_else(|| format!("expected 64 hexadecimal digits after {HASH_PREFIX}"))?,
            None if token.chars().count() < MIN_TOKEN_CHARS => {
                return Err(format!("the token has fewer than {MIN_TOKEN_CHARS} characters"));
            }
            None => sha256(token),
        };
        Ok(Self { name: name.into(), hash })
    }
}

fn sha256(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

fn parse_hash(hex: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    for (index, byte) in hash.iter_mut().enumerate() {
        let digits = hex.get(index * 2..index * 2 + 2)?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(hash)
}

#[cfg(unix)]
fn warn_if_open(file: &Path) {
    use std::os::unix::fs::PermissionsExt;

    let mode = std::fs::metadata(file).map(|metadata| metadata.permissions().mode());
    if mode.is_ok_and(|mode| mode & 0o007 != 0) {
        tracing::warn!(file = %file.display(), "every user of this machine may use the tokens file");
    }
}

#[cfg(not(unix))]
fn warn_if_open(_: &Path) {}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "first-token-0123456789";
    const SECOND: &str = "second-token-0123456789";

    #[test]
    fn a_name_may_have_several_tokens_and_a_token_may_be_hashed() {
        let hash: String = sha256(SECOND).iter().map(|byte| format!("{byte:02x}")).collect();
        let file = format!("# clients\n\n news {FIRST}\r\nnews sha256:{hash}\n");
        let tokens = Tokens::parse(file.as_bytes()).unwrap();
        assert_eq!(tokens.name_of(FIRST).as_deref(), Some("news"));
        assert_eq!(tokens.name_of(SECOND).as_deref(), Some("news"));
        for wrong in ["", "first-token-0123456788", &FIRST[..FIRST.len() - 1], hash.as_str()] {
            assert_eq!(tokens.name_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_bad_line_is_named_and_not_quoted() {
        let cases = [
            ("", "no token"),
            ("# nothing", "no token"),
            ("news", "line 1: expected NAME TOKEN"),
            ("\nnews a b", "line 2: expected NAME TOKEN"),
            ("news shortsecret", "fewer than 16"),
            ("news sha256:12", "64 hexadecimal digits"),
            ("news sha256:zz00000000000000000000000000000000000000000000000000000000000000", "64"),
        ];
        for (file, expected) in cases {
            let problem = Tokens::parse(file.as_bytes()).unwrap_err();
            assert!(problem.contains(expected), "{file:?}: {problem}");
            assert!(!problem.contains("shortsecret"), "{problem}");
        }
        assert!(Tokens::parse(b"news \xff").is_err());
        let many = format!("news {FIRST}\n").repeat(MAX_TOKENS + 1);
        assert!(Tokens::parse(many.as_bytes()).unwrap_err().contains("1001 tokens"));
    }
}
