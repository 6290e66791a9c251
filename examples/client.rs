//! A Rust client of a running server:
//!
//! ```text
//! cargo run --release -- serve
//! cargo run --release --example client
//! ```

#![allow(clippy::print_stdout)]

use tasnif::server::proto::classifier_client::ClassifierClient;
use tasnif::server::proto::{ClassifyRequest, Document};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut client = ClassifierClient::connect("http://127.0.0.1:50051").await?;
    let document = Document {
        id: "1".into(),
        title: "قمة عربية في الرياض".into(),
        text: "يبحث القادة العرب ملفات التعاون الاقتصادي والأمن الغذائي.".into(),
    };
    let request = ClassifyRequest { document: Some(document), options: None };
    let reply = client.classify(request).await?.into_inner();
    for task in reply.classification.unwrap_or_default().tasks {
        println!("{}: {} ({:.0} %)", task.task, task.label, task.score * 100.0);
    }
    Ok(())
}
