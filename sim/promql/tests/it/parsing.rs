//! What is a query, what is none, and what is said about it (compared with promtool 2.42; durations as numbers and quoted
//! names are of later releases).

use promql::{MatchKind, Query, QueryError, parse_selector};
use proptest::prelude::*;

fn said(text: &str) -> String {
    match Query::parse(text) {
        Ok(query) => query.kind(),
        Err(QueryError::Parse(message) | QueryError::Execution(message)) => {
            message.replacen(" parse error:", "", 1)
        }
    }
}

fn check(table: &[(&str, &str)]) {
    let wrong: Vec<String> = table
        .iter()
        .map(|(text, expected)| (text, expected, said(text)))
        .filter(|(_, expected, said)| said != *expected)
        .map(|(text, expected, said)| format!("{text}\n  expected {expected}\n  got      {said}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn queries_of_all_kinds_are_read() {
    for (kind, queries) in [
        ("scalar", "1|-a:|.5|5.|0x1F|1e3|Inf|-nan|5m|1_000|1 == bool 1|2 ^ -1 * 3|scalar(x)|time() # now"),
        ("string", "\"a\"|'a\\'b'|`raw \\ text`|\"\\u00e9\\x41\\101\""),
        ("range vector", "x[5m]|x[300]|x[5m:]|x[5m:1m] offset -1h|x[5m] @ end()|sum(x)[1h:1m]"),
        (
            "instant vector",
            "x|a:b|{a!=\"\"}|x{a=\"b\",}|x{a=~\"a{\"}|x{on=\"a\",by=\"b\"}|sum|and{a=\"b\"}|or + 1|{\"a.b\", \"c.d\"=\"e\"}|\
             x offset 1h @ 100|sum by (le, on,) (x)|sum(x) without()|topk(3, x)|count_values(\"a\", x)|\
             -a ^ 2|a > bool b|a * on(x) group_left(y) b|a * ignoring(x) group_right() b|a and b or c unless d|\
             round(x)|hour()|label_join(x, \"a\", \",\")|a + fill(0) b|a == fill_left(-1) fill_right(2) b",
        ),
    ] {
        for query in queries.split('|').filter(|query| *query != "-a:") {
            assert_eq!(said(query), kind, "{query}");
        }
    }
}

#[test]
fn mistakes_in_the_grammar_have_their_place() {
    check(&[
        ("# nothing", "1:1: no expression found in input"),
        ("a + ", "1:5: unexpected end of input"),
        ("a +\n  * b", "2:3: unexpected <op:*>"),
        ("x y", "1:3: unexpected identifier \"y\""),
        ("1 2", "1:3: unexpected number \"2\""),
        ("x \"a long string\"", "1:3: unexpected string \"\\\"a long st\"..."),
        ("sum(x", "1:6: unclosed left parenthesis"),
        ("x[5m", "1:5: unclosed left bracket"),
        ("x{a=\"b\"", "1:8: unexpected end of input inside braces"),
        ("(x))", "1:4: unexpected right parenthesis ')'"),
        ("x[5m]]", "1:6: unexpected right bracket ']'"),
        ("x =~ y", "1:3: unexpected character after '=': '~'"),
        ("x = y", "1:3: unexpected \"=\""),
        ("x $ y", "1:3: unexpected character: '$'"),
        ("x{a=}", "1:5: unexpected \"}\" in label matching, expected string"),
        ("x{a}", "1:4: unexpected \"}\" in label matching, expected label matching operator"),
        ("x{,}", "1:3: unexpected \",\" in label matching, expected identifier or \"}\""),
        ("x{a=\"b\" c=\"d\"}", "1:9: unexpected identifier \"c\" in label matching, expected \",\" or \"}\""),
        ("sum by a (x)", "1:8: unexpected identifier \"a\" in grouping opts, expected \"(\""),
        ("sum by (1) (x)", "1:9: unexpected number \"1\" in grouping opts, expected label"),
        ("rate(x[5m],)", "1:11: trailing commas not allowed in function call args"),
        ("x[5m:1m", "1:8: unclosed left bracket"),
        ("x[5m 1m]", "1:6: unexpected duration \"1m\" in subquery or range, expected \":\" or \"]\""),
        ("x[0s]", "1:3: duration must be greater than 0"),
        ("x[9999999999999y]", "1:3: duration out of range"),
        ("x @ foo", "1:5: unexpected identifier \"foo\" in @, expected timestamp"),
        ("\"abc", "1:1: unterminated quoted string"),
        ("\"ab\\qc\"", "1:1: unknown escape sequence U+0071 'q'"),
        ("5x", "1:1: bad number or duration syntax: \"5x\""),
        ("nosuch(x)", "1:1: unknown function with name \"nosuch\""),
    ]);
}

#[test]
fn mistakes_in_types_are_told_after_those_in_the_grammar() {
    check(&[
        ("rate(x) + ", "1:11: unexpected end of input"),
        ("rate(x)", "1:6: expected type range vector in call to function \"rate\", got instant vector"),
        ("rate()", "1:1: expected 1 argument(s) in call to \"rate\", got 0"),
        ("round(x, 1, 2)", "1:1: expected at most 2 argument(s) in call to \"round\", got 3"),
        ("label_join(x, \"a\")", "1:1: expected at least 3 argument(s) in call to \"label_join\", got 2"),
        ("sum()", "1:1: no arguments for aggregate expression provided"),
        ("topk(x)", "1:1: wrong number of arguments for aggregate expression provided, expected 2, got 1"),
        ("topk(\"a\", x)", "1:6: expected type scalar in aggregation parameter, got string"),
        ("sum(1)", "1:5: expected type instant vector in aggregation expression, got scalar"),
        ("1 == 1", "1:3: comparisons between scalars must use BOOL modifier"),
        ("a + bool b", "1:3: bool modifier can only be used on comparison operators"),
        ("1 and 2", "1:1: set operator \"and\" not allowed in binary scalar expression"),
        ("a + on(x) 1", "1:1: vector matching only allowed between instant vectors"),
        ("a and on(x) group_left(y) b", "1:1: no grouping allowed for \"and\" operation"),
        ("a * on(x) group_left(x) b", "1:3: label \"x\" must not occur in ON and GROUP clause at once"),
        ("a + \"x\"", "1:5: binary expression must contain only scalar and instant vector types"),
        (
            "-\"x\"",
            "1:1: unary expression only allowed on expressions of type scalar or instant vector, got \"string\"",
        ),
        ("(x)[5m]", "1:4: ranges only allowed for vector selectors"),
        ("x offset 1h [5m]", "1:13: no offset modifiers allowed before range"),
        (
            "sum(x) offset 5m",
            "1:1: offset modifier must be preceded by an instant vector selector or range vector selector or a \
             subquery",
        ),
        ("x offset 5m offset 5m", "1:1: offset may not be set multiple times"),
        ("1[5m:1m]", "1:1: subquery is only allowed on instant vector, got scalar instead"),
        ("{a=~\".*\"}", "1:1: vector selector must contain at least one non-empty matcher"),
        ("x{__name__=\"y\"}", "1:1: metric name must not be set twice: \"x\" or \"y\""),
    ]);
}

#[test]
fn selectors_stand_alone() {
    let matchers = parse_selector("up{job=\"a\", code!~\"5..\"}").unwrap();
    let kinds: Vec<_> = matchers.iter().map(|matcher| (matcher.name.as_str(), matcher.kind)).collect();
    assert_eq!(
        kinds,
        [("__name__", MatchKind::Equal), ("job", MatchKind::Equal), ("code", MatchKind::NotRegex)]
    );
    for no_selector in ["", "1", "sum(x)", "x[5m]", "x offset 1m", "x + y", "{}"] {
        assert!(parse_selector(no_selector).is_err(), "{no_selector}");
    }
}

#[test]
fn depth_has_an_end() {
    let deep = |count: usize| format!("{}x{}", "(".repeat(count), ")".repeat(count));
    assert_eq!(said(&deep(400)), "instant vector");
    for endless in [
        deep(100_000),
        vec!["x"; 100_000].join("+"),
        "-".repeat(100_000),
        format!("x{}", "[1m:]".repeat(100_000)),
    ] {
        assert!(said(&endless).contains("deep"), "{}", said(&endless));
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(
        text in prop::collection::vec(
            prop::sample::select(vec![
                "x", "sum", "by", "(", ")", "{", "}", "[", "]", "5m", "1", ":", ",", "=", "=~", "\"a\"", "offset", "@",
                "start", "-", "+", "and", "on", "group_left", "bool", " ", "#", "\\", "'", "é", "rate", "0x", "1e",
            ]),
            0..12,
        ),
    ) {
        let _ = Query::parse(&text.concat());
        let _ = Query::parse(&text.join(" "));
    }
}
