//! A mistake in a query, under the place where it is.

use spoor_api::tempo::Mistake;

/// The message, the line of the text and a caret under the place. Starts on a line of its own.
pub(super) fn shown(text: &str, mistake: &Mistake) -> String {
    let Mistake { message, line, column } = mistake;
    let line = text.lines().nth((*line as usize).saturating_sub(1)).unwrap_or_default();
    // Tabs stay, so that the caret stands where a terminal shows the place.
    let before = line.chars().take((*column as usize).saturating_sub(1));
    let indent: String = before.map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
    format!("{message}\n  {line}\n  {indent}^")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &str) {
        let shown = shown(text, &spoor_api::tempo::asked(text).unwrap_err());
        let (_, place) = shown.split_once('\n').unwrap();
        assert_eq!(place, expect);
    }

    #[test]
    fn the_caret_stands_under_the_place() {
        check("{ span.a = }", "  { span.a = }\n             ^");
        check("{ true }\n| select(.a) x", "  | select(.a) x\n               ^");
        check("{ true ", "  { true \n         ^");
    }
}
