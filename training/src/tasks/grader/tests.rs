//! Tests of the grader as a whole: measured vectors, data sets, and texts that nobody would write.

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::budget::MAX_STEPS;
use super::*;

const QWEN: Grader = Grader { mode: GraderMode::Qwen, requires_box: false };
const STRICT: Grader = Grader { mode: GraderMode::Strict, requires_box: false };

/// The lines of a file of the shared folder, or `None`, with a message, where there is no such folder.
fn shared(file: &str) -> Option<Vec<String>> {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared").join(file);
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(text.lines().map(str::to_owned).collect()),
        Err(error) => {
            println!("skipped: cannot read `{}`: {error}", path.display());
            None
        }
    }
}

fn rows(file: &str) -> Vec<serde_json::Value> {
    let lines = shared(file).unwrap_or_default();
    lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The text of the quoted literal that `line` begins with, and the rest of the line.
fn literal(line: &str) -> (String, &str) {
    let quote = line.chars().next().unwrap();
    let (text, rest) = line[1..].split_once(quote).unwrap();
    (text.replace(r"\\", r"\").replace(r"\n", "\n"), rest.trim_start())
}

#[test]
fn a_solution_may_have_headings_and_boxes_its_answer_all_the_same() {
    let solution = "#### Step 1\nAdd.\n#### Step 2\nSo $\\boxed{5}$.";
    for grader in [QWEN, STRICT] {
        assert!(grader.grade(r"\boxed{5}", solution).correct && !grader.grade(r"\boxed{6}", solution).correct);
        assert!(grader.grade(r"\boxed{18}", "9 * 2 = 18\n#### 18").correct);
    }
    assert!(STRICT.grade(r"\boxed{5}", r"Thus \fbox{5}.").correct);
}

#[test]
fn no_answer_is_no_answer_whatever_the_reference_normalises_to() {
    for (word, other) in [("east", "west"), ("more", "less"), ("increase", "decrease")] {
        let reference = format!(r"\text{{{word}}}");
        for grader in [QWEN, STRICT] {
            assert!(!grader.grade("I do not know, sorry.", &reference).correct, "{word}");
            assert!(grader.grade(&format!(r"So \boxed{{\text{{{word}}}}}."), &reference).correct, "{word}");
            assert!(!grader.grade(&format!(r"So \boxed{{\text{{{other}}}}}."), &reference).correct, "{word}");
        }
    }
    // Qwen mode does not look into an `\fbox`, so it is no box there.
    assert_eq!(QWEN.requiring_box(true).extract(r"\fbox{5} is it in 3 steps"), None);
    assert_eq!(STRICT.requiring_box(true).extract(r"\fbox{5} is it in 3 steps").as_deref(), Some("5"));
}

#[test]
fn what_is_read_is_what_can_be_told_apart() {
    for answer in [
        "5",
        "(2,4)",
        "(3,4]",
        r"x \in [-2,7]",
        "(6,31,-1)",
        "1,-2",
        r"\{1,2\}",
        r"(-\infty,1)\cup(2,\infty)",
        "x=5",
        "f(x)=2x",
        r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}",
        r"The answer is \boxed{\frac12}.",
        "So it is.\n#### 18",
    ] {
        assert!(QWEN.reads(answer) && STRICT.reads(answer), "{answer}");
    }
    for answer in [r"\text{no } @ answer", "The number of ways is 12", "Proof by induction on n", "", "(1,)@", "(1, @)"]
    {
        assert!(!QWEN.reads(answer) && !STRICT.reads(answer), "{answer}");
    }
    let answers = rows("data/math500-test.jsonl");
    for grader in [QWEN, STRICT] {
        let not_read: Vec<&str> =
            answers.iter().filter_map(|row| row["answer"].as_str()).filter(|answer| !grader.reads(answer)).collect();
        // Names, days and the like.
        assert!(not_read.len() <= 12, "{:?}: {not_read:?}", grader.mode());
    }
}

#[test]
fn degrees_belong_to_the_function_before_them() {
    for answer in ["0.5", r"\frac12", r"\sin(30^\circ)"] {
        assert!(STRICT.grade(&format!(r"\boxed{{{answer}}}"), r"\sin 30^\circ").correct, "{answer}");
    }
    assert!(!STRICT.grade(r"\boxed{-0.98803}", r"\sin 30^\circ").correct, "no radians");
    assert!(STRICT.grade(r"\boxed{2-\sqrt3}", r"\tan 15^\circ").correct);
    assert!(STRICT.grade(r"\boxed{30}", r"30^\circ").correct);
}

#[test]
fn measured_vectors_hold() {
    let mut failures = Vec::new();
    let mut count = 0;
    for line in include_str!("../../../tests/golden/grader.txt").lines() {
        let (input, rest) = literal(line);
        count += 1;
        if let Some(rest) = rest.strip_prefix("=> ") {
            let extracted = QWEN.extract(&input).unwrap_or_default();
            let (expected, _) = literal(rest);
            // The original deletes both letters as units, and so the whole answer.
            let expected = if input == r"\boxed{s t}" { "st".to_owned() } else { expected };
            if extracted != expected {
                failures.push(format!("{line} but {extracted}"));
            }
        } else {
            let (reference, verdict) = literal(rest.strip_prefix("vs ").unwrap());
            if QWEN.equal(&input, &reference) != verdict.starts_with("True") {
                failures.push(line.to_owned());
            }
        }
    }
    assert!(failures.is_empty(), "{} of {count} failed:\n{}", failures.len(), failures.join("\n"));
    assert_eq!(count, 131);
}

#[test]
fn every_math500_answer_equals_itself() {
    for row in rows("data/math500-test.jsonl") {
        let answer = row["answer"].as_str().unwrap();
        for grader in [QWEN, STRICT] {
            let grade = grader.grade(&format!(r"So it is \boxed{{{answer}}}."), answer);
            assert!(grade.correct && !grade.undecided, "{:?}: {answer}: {grade:?}", grader.mode());
            let by_solution = grader.grade(&format!(r"\boxed{{{answer}}}"), row["solution"].as_str().unwrap());
            assert!(by_solution.correct, "{:?}: {answer} against its solution", grader.mode());
        }
    }
}

#[test]
fn strict_mode_tells_neighbouring_math500_answers_apart() {
    let rows = rows("data/math500-test.jsonl");
    let answers: Vec<&str> = rows.iter().map(|row| row["answer"].as_str().unwrap()).collect();
    for pair in answers.windows(2) {
        // Neighbours such as `5` and `x=5` do mean the same; the paper's normal form tells those.
        let normal = |answer: &str| QWEN.extract(&format!(r"\boxed{{{answer}}}"));
        if normal(pair[0]) != normal(pair[1]) {
            assert!(!STRICT.grade(&format!(r"\boxed{{{}}}", pair[0]), pair[1]).correct, "{pair:?}");
        }
    }
}

#[test]
fn gsm8k_and_aime_solutions_give_the_reference() {
    for row in rows("data/gsm8k-test.jsonl") {
        let solution = row["answer"].as_str().unwrap();
        let gold = extract::after_hashes(solution).unwrap();
        for grader in [QWEN, STRICT] {
            assert!(grader.grade(&format!(r"\boxed{{{gold}}}"), solution).correct, "{gold}");
            assert!(grader.grade(&format!("That makes {gold}"), solution).correct, "{gold}");
            assert!(!grader.grade(&format!(r"\boxed{{{gold}7}}"), solution).correct, "{gold}7");
        }
    }
    for row in rows("data/aime24-test.jsonl") {
        let solution = row["solution"].as_str().unwrap();
        for grader in [QWEN, STRICT] {
            assert!(grader.grade(solution, solution).correct, "{solution}");
        }
    }
}

#[test]
fn grades_the_mini_suite() {
    for grader in [QWEN, STRICT] {
        let grade = grader.grade(r"12+30: 2+0=2, 1+3=4. \boxed{42}", "42");
        assert_eq!(grade, Grade { correct: true, extracted: Some("42".into()), undecided: false });
        let grade = grader.grade(r"\boxed{43}", "42");
        assert_eq!(grade, Grade { correct: false, extracted: Some("43".into()), undecided: false });
        let grade = grader.grade("no idea", "42");
        assert_eq!(grade, Grade { correct: false, extracted: None, undecided: false });
        assert!(grader.grade(r"\boxed{18}", "9 * 2 = 18\n#### 18").correct);
        assert!(grader.grade(r"\boxed{042}", "42").correct);
    }
}

#[test]
fn modes_differ_where_the_documentation_says() {
    for (response, answer, qwen, strict) in [
        (r"so boxed 7$", "7", true, true),
        (r"\boxed{7} or \boxed{8", "8", true, false),
        (r"\boxed{a+b}", "c+b", true, false),
        (r"\boxed{12\text{ cm}^2}", "12", false, true),
        (r"\boxed{4\text{ and }5}", "45", true, false),
        (r"\boxed{5\text{ and }4}", "4,5", false, true),
        (r"\boxed{1{,}000}", "1000", false, true),
        (r"\boxed{45}", "4,5", true, false),
        (r"\boxed{50}", "0.5", true, false),
        (r"\boxed{50\%}", "0.5", true, true),
        (r"\boxed{1234567}", "1234568", true, false),
        (r"\boxed{\frac{\pi}{2}}", "1.5708", false, true),
        (r"\boxed{1\frac12}", "1.5", false, true),
        (r"\boxed{\sin(30^\circ)}", "0.5", false, true),
        (r"\boxed{(1,2)}", "[1,2]", true, false),
        (r"\boxed{-2, 1}", "1, -2", false, true),
        (r"\boxed{2y=4x+2}", "y=2x+1", false, true),
        (r"\boxed{A, C}", "C", true, false),
        (r"\boxed{(a, b)}", "(c, b)", true, false),
    ] {
        let verdicts = (QWEN.grade(response, answer).correct, STRICT.grade(response, answer).correct);
        assert_eq!(verdicts, (qwen, strict), "{response} | {answer}");
    }
}

#[test]
fn strict_mode_reads_the_notations_of_models() {
    for (response, answer) in [
        (r"10{,}080", r"10,\!080"),
        (r"\begin{pmatrix} \frac{1}{5} \\ -\frac{18}{5} \end{pmatrix}", r"\begin{pmatrix} 1/5 \\ -18/5 \end{pmatrix}"),
        ("90", r"90^\circ"),
        ("2x + 3", "y = 2x + 3"),
        (r"32{,}348 \text{ dollars}", r"\$32,\!348"),
        (r"864\ \text{square inches}", r"864 \mbox{ inches}^2"),
        ("137.5", r"137 \frac{1}{2}"),
        (r"3+2\sqrt2,\; 3-2\sqrt2", r"3 \pm 2 \sqrt{2}"),
        ("5.4", r"5.4 \text{ cents}"),
        ("C", r"\text{(C)}"),
        (r"6.72 \times 10^{-5}", ".0000672"),
        ("2516_{8}", "2516_8"),
        (r"\frac{270}{7}", r"\frac{270}7\text{ degrees}"),
        (r"\left[-2, 7\right]", r"x \in [-2,7]"),
        (r"\dfrac{9a+11}{20}", r"\frac{11+9a}{20}"),
        (r"(b+2)(a+5)", r"(a+5)(b+2)"),
        (r"\frac{\cos x}{\sin x}", r"\cot x"),
        (r"\boxed{5}", "x=5"),
        (r"\textbf{(E)}", r"\text{(E)}"),
        ("two", "2"),
        (r"18\text{ eggs}", "18"),
        ("7", r"7\text{th}"),
        (r"\frac{3}{4}\text{ pizzas}", "0.75"),
        (r"12\text{ red balls}", r"12\text{ red balls}"),
        (r"\text{20 minutes}", "20"),
        ("1 000", "1000"),
        (r"1\,000\,000", "1000000"),
        (r"5\text{ fifth graders}", "5"),
        (r"3\mathrm{i}", "3i"),
    ] {
        let grade = STRICT.grade(&format!(r"Thus $\boxed{{{response}}}$."), answer);
        assert!(grade.correct, "{response} | {answer}: {grade:?}");
    }
}

#[test]
fn strict_mode_reads_no_noun_that_changes_the_number() {
    for (response, answer) in [
        (r"2\text{ million}", "2"),
        (r"2\text{ million dollars}", "2"),
        (r"2\text{ Dozen}", "2"),
        (r"3\text{ dozen eggs}", "3"),
        (r"3\text{ tenths}", "3"),
        (r"5\text{ squared}", "5"),
        (r"5\text{ twelfths}", "5"),
        (r"5\text{ tens}", "5"),
        (r"3\mathrm{i}", "3"),
        (r"4\text{x}", "4"),
        (r"18\text{ eggs}", r"18\text{ hens}"),
        (r"18\text{ eggs}", "17"),
        (r"2\text{ x}", "2x"),
        ("3ab", "3"),
        (r"2\text{ h }30\text{ m}", "2"),
        ("1 0000", "10000"),
        (r"100 \quad 200", "100200"),
        (r"100\;200", "100200"),
    ] {
        assert!(!STRICT.grade(&format!(r"Thus $\boxed{{{response}}}$."), answer).correct, "{response} | {answer}");
    }
}

#[test]
fn modes_have_names() {
    assert_eq!(serde_json::to_string(&GraderMode::Strict).unwrap(), r#""strict""#);
    assert_eq!(serde_json::from_str::<GraderMode>(r#""qwen""#).unwrap(), GraderMode::Qwen);
}

#[test]
fn what_cannot_be_computed_is_undecided() {
    for grader in [QWEN, STRICT] {
        for answer in ["10^{10^{10}}", "99999!", r"\foo{3}", &"(".repeat(1000), &r"\frac{1}".repeat(200)] {
            let grade = grader.grade(&format!(r"\boxed{{{answer}}}"), "x^2");
            assert!(!grade.correct && grade.undecided, "{:?}: {answer}", grader.mode());
        }
        let endless = "x+".repeat(5000);
        assert_eq!(grader.extract(&format!(r"\boxed{{{endless}1}}")), None);
        assert!(grader.equal(&endless, &endless) && !grader.equal(&endless, "x"));
    }
}

/// Refusals that a comparison may meet after its budget is spent: every part that it is made of gives up at its first.
const REFUSALS: u32 = 2_000;

#[test]
fn expensive_answers_stay_within_the_budget() {
    let nested = |depth: usize| format!("{}x{}", r"\frac{1}{1+".repeat(depth), "}".repeat(depth));
    let sum = |name: &str| (0..400).map(|n| format!("{name}^{n}")).collect::<Vec<_>>().join("+");
    let set = |start: usize| (start..start + 200).map(|n| format!("{n}x")).collect::<Vec<_>>().join(",");
    let texts = [
        nested(10),
        nested(170),
        sum("x"),
        sum("y"),
        format!("{{{}}}", set(0)),
        format!("{{{}}}", set(1)),
        "(".repeat(900) + &")".repeat(900),
        "[1,".repeat(300) + &"]".repeat(300),
        "9".repeat(2000),
        r"\sqrt{".repeat(300) + "2" + &"}".repeat(300),
        "300!*".repeat(400) + "1",
        "2^{2000}*".repeat(200) + "1",
        r"\frac{1}{3^{900}}+".repeat(100) + "1",
        "-".repeat(2000),
        "|".repeat(2000),
        "x!".repeat(1000),
        "!".repeat(2000),
        "2^".repeat(1000),
        "x_".repeat(1000),
        r"2\cdot".repeat(300) + r"\begin{pmatrix}" + &"1&".repeat(100) + r"1\end{pmatrix}",
    ];
    for grader in [QWEN, STRICT] {
        for a in &texts {
            for b in &texts {
                let same = grader.equal(a, b);
                assert!(!same || a == b || a.len().min(b.len()) > 1000, "{a} | {b}");
                let mut comparison = Comparison::new();
                grader.compare(&grader.normalize(a), &grader.normalize(b), &mut comparison);
                let asked = comparison.budget.asked();
                assert!(asked <= MAX_STEPS + REFUSALS, "{a} | {b}: asked for {asked} steps");
            }
        }
    }
}

/// Characters and commands that the parsers treat specially, among others that they do not.
fn fragments() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        r"\frac",
        r"\sqrt",
        "{",
        "}",
        "(",
        ")",
        "[",
        "]",
        "^",
        "_",
        "!",
        "|",
        "+",
        "-",
        "*",
        "/",
        "=",
        "<",
        ",",
        ".",
        "%",
        r"\%",
        "1",
        "2",
        "37",
        "0.5",
        "x",
        "y",
        "e",
        "i",
        r"\pi",
        r"\sin ",
        r"\log_",
        r"\binom",
        r"\pm",
        r"\cup",
        r"\in",
        r"\begin{pmatrix}",
        r"\end{pmatrix}",
        r"\\",
        "&",
        r"\text{",
        " and ",
        "ten",
        " ",
        "\n",
        "$",
        r"\boxed{",
        "é",
        "答案是",
        r"^\circ",
        r"\overline{3}",
        r"\left",
        r"\infty",
        "####",
        "ки",
        "\\",
    ]);
    prop::collection::vec(known, 0..60).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_graded(response in fragments(), answer in fragments()) {
        for grader in [QWEN, STRICT] {
            let grade = grader.grade(&response, &answer);
            prop_assert!(!(grade.correct && grade.undecided));
            let boxed = grader.grade(&format!(r"\boxed{{{response}}}"), &answer);
            prop_assert!(!(boxed.correct && boxed.undecided));
            grader.equal(&response, &answer);
            prop_assert!(response.trim().is_empty() || grader.equal(&answer, &answer) || grader.mode() == GraderMode::Strict);
        }
    }

    #[test]
    fn any_unicode_is_graded(response in any::<String>(), answer in "\\PC{0,40}") {
        for grader in [QWEN, STRICT] {
            grader.grade(&response, &answer);
            grader.equal(&response, &answer);
        }
    }

    #[test]
    fn long_texts_are_graded(fragment in fragments(), tail in fragments()) {
        let long = fragment.repeat(10_000 / fragment.len().max(1)) + &tail;
        for grader in [QWEN, STRICT] {
            grader.grade(&long, &tail);
            grader.grade(&format!(r"\boxed{{{long}"), &tail);
            let fitting: String = long.chars().take(500).collect();
            grader.equal(&fitting, &tail);
            grader.equal(&fitting, &fragment);
        }
    }

    #[test]
    fn integers_equal_themselves_only(a in -1_000_000i64..1_000_000, b in -1_000_000i64..1_000_000) {
        let grade = STRICT.grade(&format!(r"\boxed{{{a}}}"), &b.to_string());
        prop_assert_eq!(grade.correct, a == b);
        let same = QWEN.grade(&format!(r"\boxed{{{a}}}"), &a.to_string());
        prop_assert!(same.correct);
    }

    #[test]
    fn fractions_equal_their_decimals(numerator in -500i64..500, places in 0u32..4) {
        let scale = 10i64.pow(places);
        let decimal = format!("{:.*}", places as usize, numerator as f64 / scale as f64);
        for grader in [QWEN, STRICT] {
            let reference = format!(r"\frac{{{numerator}}}{{{scale}}}");
            let grade = grader.grade(&format!(r"\boxed{{{decimal}}}"), &reference);
            prop_assert!(grade.correct, "{} {}", decimal, reference);
        }
    }
}
