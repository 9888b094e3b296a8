use secrecy::SecretString;
use serde_json::json;

use super::super::config::Patience;
use super::*;
use crate::family::RemoteTier;

fn told(status: u16, body: &str) -> EngineError {
    let settings = Upstream {
        url: "http://127.0.0.1:1/v1".to_owned(),
        model: "org/short".to_owned(),
        api_key_env: Some("SHORT_KEY".to_owned()),
        budget_field: Some("thinking_token_budget".to_owned()),
        ..Upstream::default()
    };
    let key = Some(SecretString::from("sk-secret"));
    let server = Server::new(RemoteTier { name: "short".to_owned(), settings, key }, Patience::default()).unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("retry-after", "7".parse().unwrap());
    refusal(&server, StatusCode::from_u16(status).unwrap(), &headers, body)
}

#[test]
fn what_is_wrong_with_a_request_is_passed_on() {
    for (body, message, param) in [
        (json!({"error": {"message": "too hot", "param": "temperature"}}), "too hot", Some("temperature")),
        (
            json!({"object": "error", "message": "no budget", "param": "thinking_token_budget"}),
            "no budget",
            Some("max_reasoning_tokens"),
        ),
        (json!({"error": {"message": "odd", "param": "something_of_theirs"}}), "odd", None),
        (
            json!({"detail": [{"loc": ["body", "tools", 0], "msg": "bad tool", "input": "secret prompt"}]}),
            "bad tool",
            Some("tools"),
        ),
        (json!({"detail": "no"}), "no", None),
        (json!({"error": "plain"}), "plain", None),
        (json!({"message": "mistral"}), "mistral", None),
        (json!({}), "without saying why", None),
    ] {
        let EngineError::Invalid { message: got, param: blamed } = told(400, &body.to_string()) else {
            panic!("{body}")
        };
        assert_eq!((got, blamed), (format!("the server of tier `short` refused the request: {message}"), param));
    }
}

#[test]
fn a_prompt_that_is_too_long_keeps_its_numbers() {
    for message in [
        "This model's maximum context length is 4096 tokens. However, you requested 100 output tokens and your prompt contains at least 5000 input tokens.",
        "This model's maximum context length is 4096 tokens. However, you requested 5100 tokens (5000 in the messages, 100 in the completion).",
        "This model's maximum context length is 4096 tokens. However, your request has 5000 input tokens.",
        "The input (5000 tokens) is longer than the model's context length (4096 tokens).",
        "This model's maximum context length is 4096 tokens. However, your messages resulted in 5000 tokens.",
    ] {
        let error = told(400, &json!({"error": {"message": message}}).to_string());
        assert!(matches!(error, EngineError::TooLong { prompt: 5000, limit: 4096, .. }), "{error:?}");
    }
    let theirs = EngineError::TooLong { tier: "low".to_owned(), prompt: 5000, or_more: false, limit: 4096 }.to_string();
    let ours = json!({"error": {"message": theirs, "code": "context_length_exceeded"}}).to_string();
    assert!(
        matches!(told(400, &ours), EngineError::TooLong { prompt: 5000, limit: 4096, tier, .. } if tier == "short")
    );
    let vague = json!({"error": {"message": "too long", "code": "context_length_exceeded"}}).to_string();
    assert!(matches!(told(400, &vague), EngineError::TooLongElsewhere { .. }));
    let llama =
        json!({"error": {"message": "the request exceeds the available context size (1024 tokens)"}}).to_string();
    assert!(matches!(told(400, &llama), EngineError::TooLongElsewhere { .. }));
}

#[test]
fn a_server_without_our_extras_is_told_by_its_words() {
    let refused = json!({"detail": "Unexpected fields in the request: top_k, min_p"}).to_string();
    let EngineError::Invalid { message, .. } = told(422, &refused) else { panic!() };
    assert!(message.ends_with("`dialect = \"openai\"` in family.toml leaves out what OpenAI has not"), "{message}");
}

#[test]
fn keys_never_leave() {
    for status in [400, 401, 403, 429, 500, 302] {
        let error = told(status, r#"{"error": {"message": "Incorrect API key provided: sk-secret"}}"#);
        assert!(!format!("{error:?}").contains("sk-secret"), "{error:?}");
    }
    let EngineError::Failed { message, upstream: true } = told(401, "") else { panic!() };
    assert_eq!(message, "the server of tier `short` refused the key that `api_key_env` of family.toml names (401)");
}

/// Where a log goes in a test.
#[derive(Clone, Default)]
struct Log(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What is logged at `level` of a refusal.
fn logged(level: tracing::Level, body: &str) -> String {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(level).with_ansi(false).with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(subscriber, || drop(told(400, body)));
    let bytes = log.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn prompts_do_not_get_into_the_log() {
    let error = json!({"message": "cannot read `my secret diary`", "param": "messages", "code": "invalid_value"});
    let body = json!({"error": error}).to_string();
    let log = logged(tracing::Level::INFO, &body);
    for part in ["short", "400", "messages", "invalid_value"] {
        assert!(log.contains(part), "{log}");
    }
    assert!(!log.contains("diary"), "{log}");
    assert!(logged(tracing::Level::DEBUG, &body).contains("diary"), "who asks for it is told");
}

#[test]
fn each_status_has_its_meaning() {
    let EngineError::UnknownModel { message, .. } = told(404, r#"{"error": {"message": "no such model"}}"#) else {
        panic!()
    };
    assert_eq!(message, "the server of tier `short`, http://127.0.0.1:1/v1, has no model `org/short`: no such model");
    let seven = Some(Duration::from_secs(7));
    assert!(matches!(told(429, "x"), EngineError::Busy { retry_after, .. } if retry_after == seven));
    assert!(matches!(told(503, "x"), EngineError::Unavailable { retry_after, .. } if retry_after == seven));
    for (status, body, expected) in [
        (500, "boom", "the server of tier `short` answered with status 500: boom"),
        (502, "", "the server of tier `short` answered with status 502"),
        (301, "", "the server of tier `short` answered with status 301"),
    ] {
        let EngineError::Failed { message, upstream: true } = told(status, body) else { panic!() };
        assert_eq!(message, expected);
    }
}

#[test]
fn waiting_times_are_read_in_both_spellings() {
    let wait = |name: &'static str, value: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        retry_after(&headers)
    };
    assert_eq!(wait("retry-after", "2"), Some(Duration::from_secs(2)));
    assert_eq!(wait("retry-after-ms", "250"), Some(Duration::from_millis(250)));
    for odd in ["Wed, 21 Oct 2015 07:28:00 GMT", "-1", "NaN", "1e300", ""] {
        assert_eq!(wait("retry-after", odd), None, "{odd}");
    }
}
