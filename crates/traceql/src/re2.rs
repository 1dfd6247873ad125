//! Regular expressions in the syntax that TraceQL has from Go (RE2), compiled by Rust's `regex`.
//!
//! The two run in linear time and read nearly the same syntax. What differs is translated, because
//! it is common in traces or would silently mean something else:
//!
//! | written | Go | `regex`, untranslated |
//! |---|---|---|
//! | `/cart/{id}` | a brace that begins no repetition is itself | an error |
//! | `[[]`, `[a&&b]` | members of the class | a nested class, an intersection |
//! | `\d \w \s` | ASCII | all of Unicode |
//! | `\<` | itself | a word boundary |
//! | `\Q...\E` | a literal | an error |
//! | `\056`, `\p{^Greek}` | octal, all but Greek | an error |
//! | `(?x)`, `a**`, `a{1001}` | an error | taken |

use regex::{Regex, RegexBuilder};

/// Compiled expressions may take this much memory each, enough for any that a person wrote, and for a thousand names.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// An expression that matches a text as a whole; dots match line ends too. Errors say why in one line.
pub fn anchored(pattern: &str) -> Result<Regex, String> {
    let translated = translated(pattern)?;
    // By itself first: `a)(b` is no expression, though it would be one between our parentheses.
    compiled(&translated).and_then(|_| compiled(&format!("^(?s:{translated})$")))
}

/// An expression that matches a text of which any part matches. Errors say why in one line.
pub fn anywhere(pattern: &str) -> Result<Regex, String> {
    compiled(&translated(pattern)?)
}

fn compiled(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern).size_limit(COMPILED_BYTES_MAX).build().map_err(|error| {
        if let regex::Error::CompiledTooBig(_) = error {
            let reason = "it takes more than 1 MiB when compiled, which is fixed; ask for its parts in several queries";
            return reason.to_owned();
        }
        let text = error.to_string();
        text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
    })
}

fn translated(pattern: &str) -> Result<String, String> {
    check(pattern)?;
    let mut out = String::with_capacity(pattern.len());
    let mut is_in_class = false;
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match (c, is_in_class) {
            ('\\', _) => rest = escape(&mut out, rest, is_in_class),
            ('{', false) if !begins_repetition(rest) => out.push_str("\\{"),
            ('[', false) => {
                is_in_class = true;
                out.push('[');
                if let Some(negated) = rest.strip_prefix('^') {
                    out.push('^');
                    rest = negated;
                }
                // A bracket that comes first is a member.
                if let Some(members) = rest.strip_prefix(']') {
                    out.push_str("\\]");
                    rest = members;
                }
            }
            // `[:alpha:]`
            ('[', true) if rest.starts_with(':') => {
                let (name, members) = rest.split_at(rest.find(":]").map_or(0, |end| end + 2));
                out.push('[');
                out.push_str(name);
                rest = members;
            }
            (']', true) => {
                is_in_class = false;
                out.push(']');
            }
            ('[' | '&' | '~', true) => {
                out.push('\\');
                out.push(c);
            }
            // Two are a difference of sets in Rust; in Go the first is a member or begins a range.
            ('-', true) if rest.starts_with('-') => out.push_str("\\-"),
            _ => out.push(c),
        }
    }
    Ok(out)
}

/// Refuses what Rust takes and Go does not: flags, repeated repetitions, and large ones.
fn check(pattern: &str) -> Result<(), String> {
    let (mut is_in_class, mut rest) = (false, pattern);
    // What a repetition would repeat: nothing of interest, a repetition, or one that is not greedy.
    let mut repetitions = 0;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        let was = std::mem::take(&mut repetitions);
        match c {
            '\\' => {
                if let Some(literal) = rest.strip_prefix('Q') {
                    rest = literal.split_once("\\E").map_or("", |(_, rest)| rest);
                } else {
                    rest = rest.get(rest.chars().next().map_or(0, char::len_utf8)..).unwrap_or_default();
                }
            }
            '[' if !is_in_class => {
                is_in_class = true;
                rest = rest.strip_prefix('^').unwrap_or(rest);
                rest = rest.strip_prefix(']').unwrap_or(rest);
            }
            '[' if rest.starts_with(':') => rest = rest.split_once(":]").map_or("", |(_, rest)| rest),
            ']' => is_in_class = false,
            '(' if !is_in_class && rest.starts_with('?') => check_flags(&rest[1..])?,
            '*' | '+' | '?' if !is_in_class => {
                if was > 1 || was == 1 && c != '?' {
                    return Err(format!("a repetition cannot be repeated by {c:?}"));
                }
                repetitions = was + 1;
            }
            '{' if !is_in_class && begins_repetition(rest) => {
                if was > 0 {
                    return Err("a repetition cannot be repeated".to_owned());
                }
                let (counts, behind) = rest.split_once('}').unwrap_or_default();
                let is_large = |count: &str| !count.is_empty() && count.parse::<u32>().is_ok_and(|count| count > 1000);
                if counts.split(',').any(is_large) {
                    return Err(format!("{{{counts}}} repeats more than 1000 times"));
                }
                rest = behind;
                repetitions = 1;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Checks what follows `(?`: a name, or flags that Go knows.
fn check_flags(rest: &str) -> Result<(), String> {
    if rest.starts_with("P<") || rest.starts_with('<') {
        return Ok(());
    }
    let flags = &rest[..rest.find([':', ')']).unwrap_or(rest.len())];
    match flags.chars().find(|flag| !"imsU-".contains(*flag)) {
        Some(flag) => Err(format!("unknown flag {flag:?}")),
        None => Ok(()),
    }
}

/// Translates what stands behind a backslash, and returns what is left of it.
fn escape<'a>(out: &mut String, text: &'a str, is_in_class: bool) -> &'a str {
    let Some(kind) = text.chars().next() else {
        out.push('\\');
        return text;
    };
    let rest = &text[kind.len_utf8()..];
    let ascii = match kind.to_ascii_lowercase() {
        'd' => Some("0-9"),
        's' => Some("\\t\\n\\x0c\\r "),
        'w' => Some("0-9A-Za-z_"),
        _ => None,
    };
    match (kind, ascii) {
        (_, Some(members)) if is_in_class && kind.is_ascii_lowercase() => out.push_str(members),
        (_, Some(members)) => {
            let negation = if kind.is_ascii_uppercase() { "^" } else { "" };
            out.extend(["[", negation, members, "]"]);
        }
        ('<' | '>', _) => out.push(kind),
        ('b', _) if !is_in_class => out.push_str("(?-u:\\b)"),
        ('Q', _) => {
            let (literal, rest) = rest.split_once("\\E").unwrap_or((rest, ""));
            out.push_str(&regex::escape(literal));
            return rest;
        }
        // Octal: up to three digits; a single one that is not zero would refer back to a group.
        ('0'..='7', _) if kind == '0' || rest.starts_with(|next| ('0'..='7').contains(&next)) => {
            let digits = text.chars().take(3).take_while(|digit| ('0'..='7').contains(digit)).count();
            let code = u32::from_str_radix(&text[..digits], 8).unwrap_or_default();
            out.push_str(&format!("\\x{{{code:x}}}"));
            return &text[digits..];
        }
        // `\p{Greek}`, `\x{41}`: these braces are no repetition either.
        ('p' | 'P' | 'x', _) if rest.starts_with('{') => {
            let (braced, rest) = rest.split_at(rest.find('}').map_or(rest.len(), |end| end + 1));
            out.push('\\');
            match (kind, braced.strip_prefix("{^")) {
                ('p', Some(class)) => out.extend(["P{", class]),
                ('P', Some(class)) => out.extend(["p{", class]),
                _ => {
                    out.push(kind);
                    out.push_str(braced);
                }
            }
            return rest;
        }
        _ => {
            out.push('\\');
            out.push(kind);
        }
    }
    rest
}

/// Whether `3}`, `3,}` or `3,5}` follows.
fn begins_repetition(rest: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    let Some((count, _)) = rest.split_once('}') else { return false };
    match count.split_once(',') {
        None => is_number(count),
        Some((least, most)) => is_number(least) && (most.is_empty() || is_number(most)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(pattern: &str, matching: &[&str], not_matching: &[&str]) {
        let regex = anchored(pattern).expect("compiles");
        for text in matching {
            assert!(regex.is_match(text), "{pattern} should match {text}: {regex}");
        }
        for text in not_matching {
            assert!(!regex.is_match(text), "{pattern} should not match {text}: {regex}");
        }
    }

    #[test]
    fn the_whole_text_is_matched() {
        check("a|b.", &["a", "bc", "b\n"], &["ab", "xa", "a\n"]);
        check("(?i)get .*", &["GET /", "get "], &["got /"]);
        check("", &[""], &["a"]);
    }

    #[test]
    fn any_part_of_a_text_may_match() {
        let regex = anywhere("b{x}|^y").unwrap();
        assert!(regex.is_match("ab{x}c") && regex.is_match("yz") && !regex.is_match("zy"));
        assert!(anywhere("a)(b").is_err());
    }

    #[test]
    fn braces_that_repeat_nothing_are_themselves() {
        check("GET /cart/{id}", &["GET /cart/{id}"], &["GET /cart/1"]);
        check("/a/{b}/{c}|/d{,3}", &["/a/{b}/{c}", "/d{,3}"], &["/ddd"]);
        check("a{2}b{1,}c{0,1}", &["aab", "aabbc"], &["ab", "aabcc"]);
        check(r"\{id\}\x{41}\p{Lu}", &["{id}AB"], &["{id}Ab"]);
    }

    #[test]
    fn classes_are_those_of_go() {
        check("[[]x]", &["[x]"], &["xx]"]);
        check("[a&&b]+", &["a&b"], &["c"]);
        check("[]a]+", &["]a"], &["b"]);
        check("[^]a]+", &["bc"], &["]", "a"]);
        check("[[:alpha:]_~-]+", &["ab_~-"], &["1"]);
        check(r"[\d.]+\D", &["1.2x"], &["1.2"]);
        check(r"[\W]", &["-"], &["a", "_"]);
    }

    #[test]
    fn perl_classes_are_ascii() {
        check(r"\d\w\s", &["1a "], &["\u{661}a ", "1\u{e9} ", "1a\u{a0}"]);
        check(r"a\b.*", &["a b", "a\u{e9}"], &["ab"]);
        check(r"\<\>", &["<>"], &[""]);
        check(r"\Qa.b(\E.", &["a.b(c"], &["axb(c"]);
        check(r"\Qa+", &["a+"], &["aa"]);
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for pattern in
            ["(?x)a . b", "(?R)a", "(?iu:a)", "a**", "a+*", "a*??", "a{2}{3}", "a{1001}", "a{2,1001}", "(a)\\1"]
        {
            assert!(anchored(pattern).is_err(), "{pattern}");
        }
        for pattern in
            ["(?i)a", "(?P<n>a)", "(?i-s:a)", "a*?", "a??", "a{2}?", "a{1000}", "[*+]*", "\\Q**\\E", "a\\**", "x{*}"]
        {
            assert!(anchored(pattern).is_ok(), "{pattern}");
        }
    }

    #[test]
    fn octal_and_negated_classes_are_those_of_go() {
        check("a\\056b", &["a.b"], &["a056b"]);
        check("\\1012", &["A2"], &["1012"]);
        check("\\p{^Greek}", &["a"], &["\u{3b1}"]);
        check("\\P{^Greek}", &["\u{3b1}"], &["a"]);
    }

    #[test]
    fn what_is_no_expression_says_why() {
        assert_eq!(anchored("a)(b").map(|_| ()), Err("unopened group".to_owned()));
        assert_eq!(anchored("[a").map(|_| ()), Err("unclosed character class".to_owned()));
        assert!(anchored("(((a{1000}){1000}){1000})").is_err_and(|reason| reason.contains("1 MiB")));
    }

    proptest! {
        #[test]
        fn a_quoted_text_matches_itself_alone(text in "\\PC{0,12}", other in "\\PC{0,12}") {
            let regex = anchored(&regex::escape(&text)).expect("quoted");
            prop_assert!(regex.is_match(&text));
            prop_assert_eq!(regex.is_match(&other), text == other);
        }

        #[test]
        fn no_pattern_makes_the_translation_panic(pattern in "[\\[\\]{}()\\\\^:a1,|&~Qxp<E-]{0,16}") {
            let _ = anchored(&pattern);
        }
    }
}
