//! HTTP responses, as crawlers keep them.

use std::io::Read;
use std::sync::LazyLock;

use encoding_rs::Encoding;
use flate2::bufread::{DeflateDecoder, GzDecoder, ZlibDecoder};
use regex::bytes::Regex;

use super::decompress::FREE_BYTES;
use super::malformed;
use crate::archive::row::{Reject, RejectReason};

/// What bodies are compressed with. Servers name others, which are none.
const CODINGS: [&str; 7] = ["gzip", "x-gzip", "deflate", "br", "zstd", "compress", "x-compress"];
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
    /// line after them, or why they cannot be read. Lines that are no field are passed
    /// over, and a field may go on in indented lines.
    pub(super) fn parse(bytes: &[u8]) -> Result<(Self, usize), String> {
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
        let end = match config.parse_response(&mut response, &whole) {
            Ok(httparse::Status::Complete(end)) => end,
            Ok(httparse::Status::Partial) => {
                return Err(format!("have no end within {} bytes", bytes.len()));
            }
            Err(httparse::Error::TooManyHeaders) => {
                return Err(format!("are more than {MAX_FIELDS}"));
            }
            Err(error) => return Err(format!("are broken: {error}")),
        };
        let field = |field: &httparse::Header<'_>| {
            let value = String::from_utf8_lossy(field.value).replace(['\r', '\n'], " ");
            (field.name.to_ascii_lowercase(), value.trim().to_owned())
        };
        let fields = response.headers.iter().map(field).collect();
        Ok((Self(fields), end.saturating_sub(STATUS.len())))
    }

    /// The first field `name`, which is in small letters.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|field| field.0 == name).map(|field| field.1.as_str())
    }

    /// The words between commas of all fields `name`, in small letters.
    fn list(&self, name: &str) -> impl Iterator<Item = String> {
        let values = self.0.iter().filter(move |field| field.0 == name);
        let words = values.flat_map(|field| field.1.split(','));
        words.map(|word| word.trim().to_ascii_lowercase()).filter(|word| !word.is_empty())
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
    /// The head at the start of `bytes`, and its length, or why it cannot be read.
    pub(super) fn parse(bytes: &[u8]) -> Result<(Self, usize), String> {
        let line_bytes = bytes.iter().position(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let (line, rest) = bytes.split_at_checked(line_bytes).unwrap_or_default();
        let status = status(line).ok_or("does not begin with a status line")?;
        let (fields, fields_bytes) =
            Fields::parse(rest).map_err(|why| format!("has fields that {why}"))?;
        Ok((Self { status, fields }, line_bytes + fields_bytes))
    }

    /// What `body` transfers, decoded. A crawler may have decoded it and left the
    /// fields as they were; so it is only taken for what it says if it looks so.
    pub(super) fn payload(&self, body: Vec<u8>, limits: Limits) -> Result<Vec<u8>, Reject> {
        let mut codings: Vec<String> = ["content-encoding", "transfer-encoding"]
            .map(|name| self.fields.list(name))
            .into_iter()
            .flatten()
            .collect();
        let chunked = codings.last().is_some_and(|coding| coding == "chunked");
        codings.retain(|coding| !matches!(&**coding, "identity" | "none" | "chunked"));
        let sent = self.fields.get("content-length").and_then(|length| length.parse::<u64>().ok());
        let body = if chunked { unchunked(body)? } else { body };
        // A page, perhaps after a byte order mark.
        let is_page = matches!(body.trim_ascii_start(), [b'<', ..] | [0xef, 0xbb, 0xbf, ..]);
        let is_decoded = is_page && codings.iter().any(|coding| CODINGS.contains(&&**coding));
        if let Some(sent) = sent
            && !chunked
            && !is_decoded
            && (body.len() as u64) < sent
        {
            let message = format!("it has {} of its {sent} bytes (Content-Length)", body.len());
            return Err(malformed(message));
        }
        if is_page {
            return Ok(body);
        }

        let limit = (body.len() as u64).saturating_mul(limits.max_expansion).max(FREE_BYTES);
        let (limit, allows_more) = match limits.max_bytes as u64 {
            max_bytes if max_bytes <= limit => (max_bytes, "--max-row-bytes"),
            _ => (limit, "--max-expansion"),
        };
        let codings: Vec<&str> = codings.iter().map(String::as_str).collect();
        let decoded = match (&*codings, &*body) {
            ([] | ["gzip" | "x-gzip"], [0x1f, 0x8b, ..]) => gunzip(&body, limit),
            ([], _) => return Ok(body),
            (["deflate"], [0x78, ..]) => decode(ZlibDecoder::new(&*body), limit),
            (["deflate"], _) => decode(DeflateDecoder::new(&*body), limit),
            (["gzip" | "x-gzip"], _) => {
                return Err(malformed("its content is said to be gzip, but is not"));
            }
            _ => {
                let message =
                    format!("its content is coded as {:?}, which is not read", codings.join(", "));
                return Err(malformed(message));
            }
        };
        let decoded = decoded
            .map_err(|error| malformed(format!("its content cannot be decompressed: {error}")))?;
        if decoded.len() as u64 > limit {
            let message =
                format!("decompressed it has more than {limit} bytes; {allows_more} allows more");
            return Err(Reject::new(RejectReason::RowTooLarge, message));
        }
        Ok(decoded)
    }
}

/// The number in a status line. Crawlers write versions that there are not, such as
/// `HTTP/2 200`.
fn status(line: &[u8]) -> Option<u16> {
    let line = String::from_utf8_lossy(line);
    let mut words = line.split_ascii_whitespace();
    words.next().filter(|version| version.starts_with("HTTP/"))?;
    words.next()?.parse().ok()
}

/// `limit` bytes of what `decoder` gives, or one more if there are more.
fn decode(decoder: impl Read, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut decoded = Vec::new();
    decoder.take(limit + 1).read_to_end(&mut decoded)?;
    Ok(decoded)
}

/// The members of gzip at the start of `body`. Servers leave bytes after them, which
/// browsers pass over too.
fn gunzip(mut body: &[u8], limit: u64) -> std::io::Result<Vec<u8>> {
    let mut decoded = Vec::new();
    while body.starts_with(&[0x1f, 0x8b]) {
        let mut member = GzDecoder::new(body);
        let room = (limit + 1).saturating_sub(decoded.len() as u64);
        if member.by_ref().take(room).read_to_end(&mut decoded)? as u64 == room {
            break;
        }
        body = member.into_inner();
    }
    Ok(decoded)
}

/// The chunks of `body` together; `body` itself if it does not begin with one.
fn unchunked(body: Vec<u8>) -> Result<Vec<u8>, Reject> {
    let mut whole = Vec::with_capacity(body.len());
    let mut rest = &*body;
    while rest.first().is_some_and(u8::is_ascii_hexdigit)
        && let Ok(httparse::Status::Complete((start, size))) = httparse::parse_chunk_size(rest)
    {
        if size == 0 {
            return Ok(whole);
        }
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let Some((chunk, after)) = rest.get(start..).and_then(|rest| rest.split_at_checked(size))
        else {
            return Err(cut_chunks(whole.len()));
        };
        whole.extend_from_slice(chunk);
        rest = after.strip_prefix(b"\r\n").unwrap_or(after);
    }
    if whole.is_empty() { Ok(body) } else { Err(cut_chunks(whole.len())) }
}

fn cut_chunks(bytes: usize) -> Reject {
    malformed(format!("its chunks are broken after {bytes} bytes, so that its end is missing"))
}
