//! HTTP responses, as crawlers keep them.

use std::io::Read;
use std::sync::LazyLock;

use encoding_rs::Encoding;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use regex::bytes::Regex;

use super::decompress::FREE_BYTES;
use crate::archive::row::{Reject, RejectReason};

/// Fields of a record or response, at most.
const MAX_FIELDS: usize = 512;

static CHARSET: LazyLock<Regex> =
    LazyLock::new(|| compile(r#"(?i-u)charset\s*=\s*["']?\s*([^\s"';>]+)"#));
static META: LazyLock<Regex> = LazyLock::new(|| compile(r"(?i-u)<meta\s[^>]*charset[^>]*"));

#[allow(clippy::expect_used)] // A literal, which the tests compile.
fn compile(expression: &str) -> Regex {
    Regex::new(expression).expect("a literal expression")
}

/// Bytes that a payload may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// As it is kept, and once decoded.
    pub(super) max_bytes: usize,
    /// Times its own size to which a compressed one may expand, once over 64 MiB.
    pub(super) max_expansion: u64,
}

/// What a media type says to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Html,
    Text,
}

impl Kind {
    /// By a field `Content-Type`.
    pub(super) fn of(content_type: &str) -> Option<Self> {
        match media_type(content_type).as_str() {
            "text/html" | "application/xhtml+xml" => Some(Self::Html),
            "text/plain" => Some(Self::Text),
            _ => None,
        }
    }
}

fn media_type(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The encoding that a field `Content-Type` says.
pub(super) fn charset(content_type: &[u8]) -> Option<&'static Encoding> {
    let label = CHARSET.captures(content_type)?.get(1)?;
    Encoding::for_label_no_replacement(label.as_bytes())
}

/// The encoding that the first `<meta>` with one in `page` says.
pub(super) fn meta_charset(page: &[u8]) -> Option<&'static Encoding> {
    META.find_iter(page).find_map(|meta| charset(meta.as_bytes()))
}

/// Fields by their names in small letters, in their order.
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    /// Those at the start of `bytes` and the number of bytes to the end of the blank
    /// line after them; `None` if there is no such line. Lines that are no field are
    /// passed over, and a field may go on in indented lines.
    pub(super) fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        // In a response crawlers' faults are forgiven.
        const STATUS: &[u8] = b"HTTP/1.1 200\r\n";
        let mut config = httparse::ParserConfig::default();
        config
            .allow_obsolete_multiline_headers_in_responses(true)
            .allow_spaces_after_header_name_in_responses(true)
            .ignore_invalid_headers_in_responses(true);
        let whole = [STATUS, bytes].concat();
        let mut room = vec![httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut response = httparse::Response::new(&mut room);
        let httparse::Status::Complete(end) = config.parse_response(&mut response, &whole).ok()?
        else {
            return None;
        };
        let field = |field: &httparse::Header<'_>| {
            let value = String::from_utf8_lossy(field.value).replace(['\r', '\n'], " ");
            (field.name.to_ascii_lowercase(), value.trim().to_owned())
        };
        let fields = response.headers.iter().map(field).collect();
        Some((Self(fields), end.saturating_sub(STATUS.len())))
    }

    /// The first field `name`, which is in small letters.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|field| field.0 == name).map(|field| field.1.as_str())
    }

    /// The media type that the field `name` says, without its parameters.
    pub(super) fn media_type(&self, name: &str) -> String {
        media_type(self.get(name).unwrap_or_default())
    }
}

/// The head of a response.
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) fields: Fields,
}

impl Response {
    /// The head at the start of `bytes`, and its length, if it is there whole.
    pub(super) fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        // Crawlers write versions that there are not, such as `HTTP/2 200`.
        let line_bytes = bytes.iter().position(|&byte| byte == b'\n')? + 1;
        let (line, rest) = bytes.split_at_checked(line_bytes)?;
        let line = String::from_utf8_lossy(line);
        let mut words = line.split_ascii_whitespace();
        words.next().filter(|version| version.starts_with("HTTP/"))?;
        let status = words.next()?.parse().ok()?;
        let (fields, fields_bytes) = Fields::parse(rest)?;
        Some((Self { status, fields }, line_bytes + fields_bytes))
    }

    /// What `body` transfers, decoded. A crawler may have decoded it and left the
    /// fields as they were; so it is only taken for what it says if it looks so.
    pub(super) fn payload(&self, body: Vec<u8>, limits: Limits) -> Result<Vec<u8>, Reject> {
        let coding = |name| self.fields.get(name).unwrap_or_default().to_ascii_lowercase();
        let body = match coding("transfer-encoding").contains("chunked") {
            true => unchunked(&body).unwrap_or(body),
            false => body,
        };
        let coding = coding("content-encoding");
        let decoder: Box<dyn Read + '_> = match (coding.as_str(), body.trim_ascii_start()) {
            // A page, perhaps after a byte order mark.
            (_, [b'<', ..] | [0xef, 0xbb, 0xbf, ..]) => return Ok(body),
            ("gzip" | "x-gzip", [0x1f, 0x8b, ..]) => Box::new(MultiGzDecoder::new(&*body)),
            ("deflate", [0x78, ..]) => Box::new(ZlibDecoder::new(&*body)),
            ("deflate", _) => Box::new(DeflateDecoder::new(&*body)),
            ("br" | "zstd" | "compress", _) => {
                let message = format!("its content is compressed by {coding:?}, which is not read");
                return Err(Reject::new(RejectReason::Malformed, message));
            }
            _ => return Ok(body),
        };
        let expanded = (body.len() as u64).saturating_mul(limits.max_expansion).max(FREE_BYTES);
        let limit = expanded.min(limits.max_bytes as u64);
        let mut payload = Vec::new();
        decoder.take(limit + 1).read_to_end(&mut payload).map_err(|error| {
            let message = format!("its content cannot be decompressed: {error}");
            Reject::new(RejectReason::Malformed, message)
        })?;
        if payload.len() as u64 > limit {
            let message = format!(
                "decompressed it has more than {limit} bytes; --max-row-bytes and \
                 --max-expansion allow more"
            );
            return Err(Reject::new(RejectReason::RowTooLarge, message));
        }
        Ok(payload)
    }
}

/// The chunks of `body` together, as far as they are there; `None` if it has none.
fn unchunked(body: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::with_capacity(body.len());
    let mut rest = body;
    while rest.first().is_some_and(u8::is_ascii_hexdigit)
        && let Ok(httparse::Status::Complete((start, size))) = httparse::parse_chunk_size(rest)
    {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let chunk = rest.get(start..).unwrap_or_default();
        whole.extend_from_slice(chunk.get(..size).unwrap_or(chunk));
        let after = chunk.get(size..).unwrap_or_default();
        rest = after.strip_prefix(b"\r\n").unwrap_or(after);
        if size == 0 || rest.is_empty() {
            return Some(whole);
        }
    }
    (rest.len() < body.len()).then_some(whole)
}
