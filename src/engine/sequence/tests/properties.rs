//! What holds whatever the model computes: random logits, scripts and limits.

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn constrained_answers_fit_their_schema_whatever_the_logits(seed: u64) {
        let schema = json!({
            "type": "object", "required": ["kind", "n"], "additionalProperties": false,
            "properties": {"kind": {"enum": ["a", "bc"]}, "n": {"type": "integer", "minimum": 0, "maximum": 99}},
        });
        let mut generation = chat("2");
        generation.thinking = Thinking::Closed;
        generation.sampling = Sampling { seed, ..Sampling::default() };
        generation.constraint = Constraint::JsonSchema(schema.clone());
        let mut sequence = MINI.start(&generation).unwrap();
        let (mut logits, mut heard) = (random_logits(seed), Heard::default());
        while !sequence.assembler.is_finished() {
            let chosen = sequence.sampler.choose(&logits());
            prop_assert!(sequence.sampler.failure().is_none());
            sequence.assembler.push(chosen).into_iter().for_each(|event| heard.hear(event));
        }
        prop_assert_eq!(heard.finish().reason, FinishReason::Stop);
        let value: serde_json::Value = serde_json::from_str(&heard.answer).unwrap();
        prop_assert!(jsonschema::is_valid(&schema, &value), "{}", heard.answer);
    }

    #[test]
    fn any_required_call_is_one_of_the_tools(seed: u64) {
        let mut generation = with_tools(ToolChoice::Required);
        generation.sampling = Sampling { seed, ..Sampling::default() };
        generation.sampling.logit_bias.insert(3, -100.0);
        let mut sequence = TOOLS.start(&generation).unwrap();
        let (mut logits, mut heard) = (random_logits(seed), Heard::default());
        while !sequence.assembler.is_finished() {
            let chosen = sequence.sampler.choose(&logits());
            prop_assert!(sequence.sampler.failure().is_none());
            sequence.assembler.push(chosen).into_iter().for_each(|event| heard.hear(event));
        }
        prop_assert_eq!(heard.calls.len(), 1);
        prop_assert!(["weather", "now"].contains(&heard.calls[0].1.as_str()));
        prop_assert!(serde_json::from_str::<serde_json::Value>(&heard.calls[0].2).unwrap().is_object());
    }
}

/// Thoughts, answer and whether a stop ended it, found in the whole sequence at once.
fn reference(ids: &[u32], stops: &[String]) -> (String, String, bool) {
    let ids: Vec<u32> = ids.iter().copied().take_while(|&id| id != 2).collect();
    let bytes = |ids: &[u32]| -> String {
        let all: Vec<u8> = ids.iter().filter(|&&id| id > 4).flat_map(|&id| raw_bytes(id)).collect();
        String::from_utf8_lossy(&all).into_owned()
    };
    let close = ids.iter().position(|&id| id == 4);
    let thinking = bytes(&ids[..close.unwrap_or(ids.len())]);
    let answer = close.map_or(String::new(), |close| bytes(&ids[close..]));
    let answer = answer.trim_start_matches(['\n', '\r']);
    for end in 0..=answer.len() {
        let at =
            |stop: &&String| !stop.is_empty() && answer.is_char_boundary(end) && answer[..end].ends_with(stop.as_str());
        if let Some(stop) = stops.iter().filter(at).max_by_key(|stop| stop.len()) {
            return (thinking, answer[..end - stop.len()].to_owned(), true);
        }
    }
    (thinking, answer.to_owned(), false)
}

/// Bytes of a mini token by the byte-level alphabet, found without the code under test.
fn raw_bytes(id: u32) -> Vec<u8> {
    static TABLE: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
        let visible = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
        let mut others = 0x100u32..;
        let alphabet: Vec<char> = (0..=255u8)
            .map(|byte| if visible(byte) { char::from(byte) } else { char::from_u32(others.next().unwrap()).unwrap() })
            .collect();
        let json: serde_json::Value = serde_json::from_str(TOKENIZER).unwrap();
        let mut table = vec![Vec::new(); 384];
        for (token, id) in json["model"]["vocab"].as_object().unwrap() {
            let byte = |letter: char| alphabet.iter().position(|&other| other == letter).unwrap() as u8;
            table[id.as_u64().unwrap() as usize] = token.chars().map(byte).collect();
        }
        table
    });
    TABLE[id as usize].clone()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn events_say_what_the_whole_sequence_says(
        mut ids in prop::collection::vec(prop_oneof![12 => 5u32..384, 1 => Just(4u32), 2 => 200u32..261], 0..80),
        stops in prop::collection::vec("[a-z .\n]{1,3}", 0..3),
    ) {
        ids.push(2);
        let mut generation = chat("2");
        generation.stop = stops.clone();
        let mut sequence = MINI.start(&generation).unwrap();
        let mut heard = Heard::default();
        for &id in &ids {
            let chosen = Chosen { id, logprob: None, top: Vec::new(), forced: false };
            sequence.assembler.push(chosen).into_iter().for_each(|event| heard.hear(event));
        }
        let (thinking, answer, stopped) = reference(&ids, &stops);
        prop_assert_eq!(&heard.thinking, &thinking);
        prop_assert_eq!(&heard.answer, &answer);
        prop_assert_eq!(heard.finish().stop.is_some(), stopped);
        prop_assert_eq!(heard.tokens, heard.finish().usage.completion_tokens);
        prop_assert!(stops.iter().all(|stop| !heard.answer.contains(stop.as_str())));
    }

    #[test]
    fn no_budget_is_exceeded_and_an_answer_always_comes(
        wanted in 0usize..200, max_tokens in 1usize..200, ignore_eos: bool, eager in 0f32..20.0, seed: u64,
    ) {
        let mut generation = chat("2");
        generation.thinking = Thinking::Budget(wanted);
        generation.max_tokens = Some(max_tokens);
        generation.sampling = Sampling { seed, ignore_eos, ..Sampling::default() };
        let mut sequence = MINI.start(&generation).unwrap();
        let (mut logits, mut heard) = (random_logits(seed), Heard::default());
        while !sequence.assembler.is_finished() {
            let mut logits = logits();
            // A model that would rather end its turn.
            logits[2] += eager;
            let chosen = sequence.sampler.choose(&logits);
            sequence.assembler.push(chosen).into_iter().for_each(|event| heard.hear(event));
        }
        let usage = heard.finish().usage;
        prop_assert!(usage.completion_tokens == max_tokens || !ignore_eos);
        prop_assert!(usage.reasoning_tokens <= wanted + 1);
        prop_assert!(max_tokens < 17 || heard.answer.chars().any(|c| c > ' '), "{:?}", heard.answer);
        prop_assert!(max_tokens < 17 || !ignore_eos || usage.completion_tokens - usage.reasoning_tokens >= 16);
        prop_assert!(heard.finish().forced_close || usage.reasoning_tokens <= wanted);
    }
}
