//! Turn the effort dial with async-openai.
//!
//! `cargo run --release --example effort_dial [http://127.0.0.1:8080/v1]`

use std::error::Error;
use std::io::Write;

use async_openai::Client;
use async_openai::config::OpenAIConfig;
use async_openai::types::chat::{
    ChatCompletionRequestUserMessageArgs, ChatCompletionStreamOptions, CreateChatCompletionRequestArgs, ReasoningEffort,
};
use futures::StreamExt;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).or_else(|| std::env::var("BREVITY_URL").ok());
    let url = url.unwrap_or_else(|| "http://127.0.0.1:8080/v1".to_owned());
    let key = std::env::var("OPENAI_API_KEY").unwrap_or_else(|_| "none".to_owned());
    let client = Client::with_config(OpenAIConfig::new().with_api_base(url).with_api_key(key));
    let mut out = std::io::stdout();
    for effort in [ReasoningEffort::Low, ReasoningEffort::High] {
        let question = ChatCompletionRequestUserMessageArgs::default().content("What is 37 * 9 - 88?").build()?;
        let request = CreateChatCompletionRequestArgs::default()
            .model("brevity-mini")
            .messages([question.into()])
            .reasoning_effort(effort.clone())
            .stream_options(ChatCompletionStreamOptions { include_usage: Some(true), include_obfuscation: None })
            .build()?;
        let mut stream = client.chat().create_stream(request).await?;
        let mut tokens = None;
        write!(out, "{effort:?}: ")?;
        while let Some(chunk) = stream.next().await {
            let chunk = chunk?;
            for choice in &chunk.choices {
                write!(out, "{}", choice.delta.content.as_deref().unwrap_or_default())?;
            }
            tokens = chunk.usage.map(|usage| usage.completion_tokens).or(tokens);
        }
        writeln!(out, " ({} tokens)", tokens.ok_or("the stream ended without usage")?)?;
    }
    Ok(())
}
