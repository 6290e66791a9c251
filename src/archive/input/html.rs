//! The article on a page, without the menus, links and remarks around it.
//!
//! html5ever parses as browsers do, and `dom_smoothie`, which is Mozilla's Readability,
//! says what the article is. Both recurse, and take times that grow with the square of
//! some sizes of a page. So these are bounded, each far above what a page of news has.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use dom_query::{Document, NodeId};
use dom_smoothie::{Config, Readability, TextMode};
use html5ever::TokenizerResult;
use html5ever::buffer_queue::BufferQueue;
use html5ever::interface::Tracer;
use html5ever::tendril::StrTendril;
use html5ever::tokenizer::{Token, TokenSink, TokenSinkResult, Tokenizer, TokenizerOpts};
use html5ever::tree_builder::{TreeBuilder, TreeBuilderOpts};
use tracing::subscriber::{NoSubscriber, with_default};

use super::attributes::{Attributes, Told};
use super::malformed;
use crate::archive::row::{Reject, RejectReason};

/// Elements, texts and comments of a page.
const MAX_NODES: usize = 50_000;
/// How deep its elements may stand in each other; browsers go as far.
const MAX_DEPTH: usize = 512;
/// Its bytes times how deep it is, since a text is looked at for each element around it.
const MAX_BYTES_AT_DEPTH: usize = 256 << 20;
/// Attributes that are kept of an element.
const MAX_ATTRIBUTES: usize = 64;
/// Attributes of one tag that are read.
const MAX_ATTRIBUTES_READ: usize = 1 << 10;
/// Characters of an article with which it is whole. With fewer, what looked like
/// buttons or menus is taken too; so these are not Mozilla's 500, but those of a brief.
const BRIEF_CHARS: usize = 200;
/// Bytes of its headings, and of its title for each, which are compared.
const MAX_HEADING_BYTES: usize = 1 << 20;
/// Bytes parsed from one look at these bounds to the next.
const STEP_BYTES: usize = 256;

/// The title and the text of the article on `page`, paragraphs apart.
///
/// # Errors
/// If there is none, or the page is over a bound.
pub(super) fn article(page: &str) -> Result<(String, String), Reject> {
    // The libraries must not take the whole archive with them, nor log each fault of a
    // page.
    let found =
        catch_unwind(AssertUnwindSafe(|| with_default(NoSubscriber::default(), || extract(page))));
    found.unwrap_or_else(|_| Err(malformed("it makes the reader of pages fail")))
}

fn extract(page: &str) -> Result<(String, String), Reject> {
    let document = parse(page)?;
    let depth = depth(&document);
    if depth > MAX_DEPTH {
        return Err(too_deep(depth));
    }
    if page.len().saturating_mul(depth) > MAX_BYTES_AT_DEPTH {
        return Err(malformed(format!(
            "its elements stand {depth} deep in each other, more than the {} of a page of {} bytes",
            MAX_BYTES_AT_DEPTH / page.len().max(1),
            page.len()
        )));
    }
    // Each address would be written out with it, however long it is.
    document.select("base").remove();
    let config = Config {
        char_threshold: BRIEF_CHARS,
        disable_json_ld: true,
        text_mode: TextMode::Formatted,
        ..Config::default()
    };
    let no_article = |_| Reject::new(RejectReason::MissingText, "no article is found on the page");
    let mut page = Readability::with_document(document, None, Some(config)).map_err(no_article)?;
    let title_bytes = page.get_article_metadata(None).title.len();
    let mut heading_bytes = 0;
    for heading in page.doc.select("h1, h2").nodes() {
        heading_bytes += title_bytes + heading.text().len();
        if heading_bytes > MAX_HEADING_BYTES {
            return Err(malformed(format!(
                "its headings, and its title for each, have more than {MAX_HEADING_BYTES} bytes"
            )));
        }
    }
    let article = page.parse().map_err(no_article)?;
    Ok((article.title, article.text_content.to_string()))
}

fn too_deep(depth: usize) -> Reject {
    malformed(format!("its elements stand {depth} deep in each other, more than {MAX_DEPTH}"))
}

/// The tree of `page`.
fn parse(page: &str) -> Result<Document, Reject> {
    let options = TreeBuilderOpts { scripting_enabled: false, ..TreeBuilderOpts::default() };
    let builder = TreeBuilder::new(Document::default(), options);
    let watched = Watched { builder, told: Cell::new(Told::Nothing) };
    // It would leave out a mark at the start of each step, not of the page alone.
    let options = TokenizerOpts { discard_bom: false, ..TokenizerOpts::default() };
    let tokenizer = Tokenizer::new(watched, options);
    let input = BufferQueue::default();
    let mut attributes = Attributes::new();
    let mut rest = page;
    while !rest.is_empty() {
        let mut end = STEP_BYTES.min(rest.len());
        while !rest.is_char_boundary(end) {
            end += 1;
        }
        let (part, after) = rest.split_at(end);
        rest = after;
        for step in tags(part) {
            input.push_back(StrTendril::from(step));
            // It stops after scripts.
            while !matches!(tokenizer.feed(&input), TokenizerResult::Done) {}
            attributes.follow(step, tokenizer.sink.told.take());
        }
        if attributes.count() > MAX_ATTRIBUTES_READ {
            let message = format!("one of its tags has more than {MAX_ATTRIBUTES_READ} attributes");
            return Err(malformed(message));
        }
        let builder = &tokenizer.sink.builder;
        if builder.sink.tree.len() > MAX_NODES {
            return Err(malformed(format!("it has more than {MAX_NODES} elements and texts")));
        }
        let open = Count(Cell::new(0));
        builder.trace_handles(&open);
        if open.0.get() > MAX_DEPTH {
            return Err(too_deep(open.0.get()));
        }
    }
    tokenizer.end();
    Ok(tokenizer.sink.builder.sink)
}

/// `part` cut before each `<`.
fn tags(part: &str) -> impl Iterator<Item = &str> {
    let mut rest = part;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?.len_utf8();
        let end = rest.get(first..)?.find('<').map_or(rest.len(), |at| at + first);
        let (step, after) = rest.split_at_checked(end)?;
        rest = after;
        Some(step)
    })
}

/// How many nodes stand in each other.
fn depth(document: &Document) -> usize {
    let (mut deepest, mut depth) = (0, 0);
    let mut node = document.root();
    loop {
        if let Some(child) = node.first_child() {
            depth += 1;
            deepest = deepest.max(depth);
            node = child;
            continue;
        }
        node = loop {
            if let Some(sibling) = node.next_sibling() {
                break sibling;
            }
            let Some(parent) = node.parent() else { return deepest };
            depth -= 1;
            node = parent;
        };
    }
}

/// Hands the tokens on to the builder of the tree, and keeps what they were.
struct Watched {
    builder: TreeBuilder<NodeId, Document>,
    told: Cell<Told>,
}

impl TokenSink for Watched {
    type Handle = NodeId;

    fn process_token(&self, mut token: Token, line: u64) -> TokenSinkResult<NodeId> {
        if let Token::TagToken(tag) = &mut token {
            tag.attrs.truncate(MAX_ATTRIBUTES);
        }
        if matches!(token, Token::ParseError(_)) {
            return TokenSinkResult::Continue;
        }
        self.told.set(Told::of(&token).max(self.told.get()));
        self.builder.process_token(token, line)
    }

    fn end(&self) {
        self.builder.end();
    }

    fn adjusted_current_node_present_but_not_in_html_namespace(&self) -> bool {
        self.builder.adjusted_current_node_present_but_not_in_html_namespace()
    }
}

/// Counts the elements that the builder works with: the open ones, and those that it
/// would open again.
struct Count(Cell<usize>);

impl Tracer for Count {
    type Handle = NodeId;

    fn trace_handle(&self, _: &NodeId) {
        self.0.set(self.0.get() + 1);
    }
}
