//! The tokenizer of mini models: every digit its own token, recurring phrases merged, any UTF-8 text covered.
//!
//! It is trained here, on generated questions, traces and drills, and written in the formats that Hugging Face tools
//! read. The same seed gives the same bytes. What the tokens are used for is not known here.

use std::path::Path;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::{AddedToken, PreTokenizerWrapper, Tokenizer};

use super::{Level, MiniProblem, Split, TraceStyle, drill, system_prompt, trace};
use crate::{Error, Result, files};

/// Entries of the vocabulary, added tokens included.
pub const VOCABULARY_SIZE: usize = 384;

/// Fills short rows of a batch; never part of a text.
pub const PAD: &str = "<|endoftext|>";

/// Opens a turn; the role and a newline follow.
pub const TURN_START: &str = "<|im_start|>";

/// Ends a turn, and with it a completion.
pub const TURN_END: &str = "<|im_end|>";

/// Opens the thoughts; written by the chat template. An ordinary token, visible in decoded text.
pub const THINK: &str = "<think>";

/// Ends the thoughts; written by the model. An ordinary token, visible in decoded text.
pub const END_THINK: &str = "</think>";

/// The chat template of mini models (ChatML with an opened `<think>`).
pub const CHAT_TEMPLATE: &str = include_str!("chat_template.jinja");

/// No merged token is longer than this, in characters: long enough for the phrases of a trace, short enough to leave
/// entries for the words of questions.
const LONGEST_TOKEN: usize = 22;

/// Positions that `tokenizer_config.json` promises; mini models are trained on far shorter sequences.
const MODEL_MAX_LENGTH: usize = 2048;

/// Problems of each level in the corpus that merges are counted on.
const CORPUS_PROBLEMS: usize = 1500;

/// Traces of each of them. A model writes traces and only reads questions, so the phrases of traces are merged first.
const TRACES_PER_PROBLEM: usize = 2;

/// The tokenizer of mini models. Ids 0 to 4 are [`PAD`], [`TURN_START`], [`TURN_END`], [`THINK`] and [`END_THINK`].
///
/// # Errors
/// [`Error::Config`] with the message of the tokenizers library, should it refuse its input.
pub fn build(seed: u64) -> Result<Tokenizer> {
    let special = |content: &str| AddedToken::from(content, true).normalized(false);
    let ordinary = |content: &str| AddedToken::from(content, false).normalized(false);
    let added = vec![special(PAD), special(TURN_START), special(TURN_END), ordinary(THINK), ordinary(END_THINK)];
    let mut trainer: tokenizers::models::TrainerWrapper = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(VOCABULARY_SIZE)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .max_token_length(Some(LONGEST_TOKEN))
        .special_tokens(added)
        .build()
        .into();
    let byte_level = ByteLevel::new(false, true, false);
    let mut tokenizer = Tokenizer::new(BPE::default());
    tokenizer
        .with_pre_tokenizer(Some(Sequence::new(vec![
            PreTokenizerWrapper::Digits(Digits::new(true)),
            PreTokenizerWrapper::ByteLevel(byte_level),
        ])))
        .with_decoder(Some(byte_level));
    tokenizer
        .train(&mut trainer, corpus(seed).into_iter())
        .map_err(|error| Error::config(format!("cannot train the mini tokenizer: {error}")))?;
    Ok(tokenizer)
}

/// Writes `tokenizer.json`, `tokenizer_config.json` and `chat_template.jinja` to `folder`, and gives the tokenizer back.
///
/// # Errors
/// As [`build`]; [`Error::Io`] when a file cannot be written.
pub fn write(folder: &Path, seed: u64) -> Result<Tokenizer> {
    let tokenizer = build(seed)?;
    files::write_json(&folder.join("tokenizer.json"), &tokenizer)?;
    files::write_json(&folder.join("tokenizer_config.json"), &config())?;
    files::write(&folder.join("chat_template.jinja"), CHAT_TEMPLATE.as_bytes())?;
    Ok(tokenizer)
}

/// What Hugging Face's `AutoTokenizer` needs to know beside `tokenizer.json`.
fn config() -> serde_json::Value {
    let token = |content: &str, special: bool| {
        json!({
            "content": content, "lstrip": false, "normalized": false, "rstrip": false, "single_word": false,
            "special": special,
        })
    };
    json!({
        "add_bos_token": false,
        "add_prefix_space": false,
        "added_tokens_decoder": {
            "0": token(PAD, true),
            "1": token(TURN_START, true),
            "2": token(TURN_END, true),
            "3": token(THINK, false),
            "4": token(END_THINK, false),
        },
        "additional_special_tokens": [TURN_START, TURN_END],
        "bos_token": null,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": false,
        "eos_token": TURN_END,
        "model_max_length": MODEL_MAX_LENGTH,
        "pad_token": PAD,
        "split_special_tokens": false,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": null,
    })
}

/// The stretches of text between added tokens, as conversations have them.
fn corpus(seed: u64) -> Vec<String> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let style = TraceStyle::default();
    let mut texts = Vec::new();
    for level in Level::ALL {
        for _ in 0..CORPUS_PROBLEMS {
            let problem = MiniProblem::draw(level, Split::Train, &mut rng);
            for _ in 0..TRACES_PER_PROBLEM {
                texts.extend(trace(&problem, &style, &mut rng).text.split(END_THINK).map(str::to_owned));
            }
            texts.push(format!("user\n{}", problem.question()));
            texts.extend(["assistant\n".to_owned(), "\n".to_owned(), drill(&mut rng, 1).text]);
            texts.extend(system_prompt(&mut rng).map(|prompt| format!("system\n{prompt}")));
        }
    }
    texts
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::super::{direct, test_set};
    use super::*;

    static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| build(0).unwrap());

    fn ids(text: &str) -> Vec<u32> {
        TOKENIZER.encode(text, false).unwrap().get_ids().to_vec()
    }

    fn round_trip(text: &str) -> String {
        TOKENIZER.decode(&ids(text), false).unwrap()
    }

    #[test]
    fn the_vocabulary_is_full_and_starts_with_the_added_tokens() {
        assert_eq!(TOKENIZER.get_vocab_size(true), VOCABULARY_SIZE);
        assert_eq!(TOKENIZER.get_vocab_size(false), VOCABULARY_SIZE);
        for (id, token) in [PAD, TURN_START, TURN_END, THINK, END_THINK].into_iter().enumerate() {
            assert_eq!(TOKENIZER.token_to_id(token), Some(id as u32));
            assert_eq!(ids(token), [id as u32]);
        }
        let text = "<think>1</think>2<|im_end|>";
        assert_eq!(TOKENIZER.decode(&ids(text), true).unwrap(), "<think>1</think>2");
    }

    #[test]
    fn every_digit_is_a_token_and_phrases_are_few() {
        assert_eq!(ids("58 + 168 = 226.\n").len(), 2 + 1 + 3 + 1 + 3 + 1);
        let phrases = super::super::VERIFICATION.iter().map(|phrase| format!(".\n{phrase} "));
        let lines = super::super::EXPLORATION.iter().map(|phrase| format!(".\n{phrase}\n"));
        for phrase in phrases.chain(lines) {
            assert!(ids(&phrase).len() <= 6, "{phrase}: {:?}", TOKENIZER.encode(phrase.as_str(), false).unwrap());
        }
        for token in TOKENIZER.get_vocab(true).into_keys() {
            assert!(token.len() == 1 || !token.contains(|letter: char| letter.is_ascii_digit()), "{token}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        let bytes = |tokenizer: &Tokenizer| serde_json::to_string(tokenizer).unwrap();
        for _ in 0..3 {
            assert_eq!(bytes(&build(0).unwrap()), bytes(&TOKENIZER));
        }
    }

    #[test]
    fn the_written_files_load_again() {
        let folder = tempfile::tempdir().unwrap();
        let written = write(folder.path(), 0).unwrap();
        let loaded = Tokenizer::from_file(folder.path().join("tokenizer.json")).unwrap();
        assert_eq!(loaded.get_vocab(true), written.get_vocab(true));
        let text = "<|im_start|>user\nWhat is 58 + 68?<|im_end|>\n";
        assert_eq!(loaded.encode(text, false).unwrap().get_ids(), ids(text));
        let config: serde_json::Value = files::read_json(&folder.path().join("tokenizer_config.json")).unwrap();
        assert_eq!(config["eos_token"], TURN_END);
        let template = config["chat_template"].as_str().unwrap();
        assert!(template.contains(THINK) && template.contains(END_THINK));
    }

    #[test]
    fn questions_and_traces_survive_the_round_trip() {
        let mut rng = ChaCha8Rng::seed_from_u64(13);
        for level in Level::ALL {
            for problem in test_set(level, 200, 1) {
                let thoughts = trace(&problem, &TraceStyle::default(), &mut rng).text;
                for text in [problem.question(), &thoughts, &direct(&problem).text] {
                    assert_eq!(round_trip(text), text);
                }
            }
        }
    }

    #[test]
    fn traces_have_the_lengths_and_accuracies_the_suite_is_built_on() {
        let mut rng = ChaCha8Rng::seed_from_u64(14);
        let style = TraceStyle::default();
        for (level, mean_tokens, accuracy) in [
            (Level::Easy, 160.0..200.0, 1.0..=1.0),
            (Level::Medium, 205.0..255.0, 0.90..=0.96),
            (Level::Hard, 270.0..330.0, 0.80..=0.91),
        ] {
            let (mut lengths, mut right, mut prompt) = (Vec::new(), 0, 0);
            for _ in 0..3000 {
                let problem = MiniProblem::draw(level, Split::Train, &mut rng);
                let trace = trace(&problem, &style, &mut rng);
                lengths.push(ids(&trace.text).len());
                right += usize::from(trace.result == problem.answer());
                prompt += ids(problem.question()).len();
            }
            lengths.sort_unstable();
            let count = lengths.len() as f64;
            let mean = lengths.iter().sum::<usize>() as f64 / count;
            let share = right as f64 / count;
            let tail = lengths[lengths.len() * 99 / 100];
            println!(
                "{level}: mean {mean:.0} tokens, 1 % {}, median {}, 99 % {tail}, longest {}, question {:.1}, right {share:.3}",
                lengths[lengths.len() / 100],
                lengths[lengths.len() / 2],
                lengths[lengths.len() - 1],
                prompt as f64 / count,
            );
            assert!(mean_tokens.contains(&mean), "{level}: {mean} tokens");
            assert!(accuracy.contains(&share), "{level}: {share} right");
            assert!(tail < 600, "{level}: {tail} tokens");
        }
    }

    proptest! {
        #[test]
        fn any_text_survives_the_round_trip(text in ".{0,80}") {
            prop_assert_eq!(round_trip(&text), text);
        }

        #[test]
        fn any_mixture_with_added_tokens_survives(parts in prop::collection::vec("<think>|</think>|<\\|im_end\\|>|[ -~\n]{0,8}|é٣½", 0..12)) {
            let text = parts.concat();
            prop_assert_eq!(round_trip(&text), text);
        }
    }
}
