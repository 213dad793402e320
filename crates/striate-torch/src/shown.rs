use std::fmt::{self, Display, Formatter, Write};

/// A text of somebody else's as one line that a terminal shows and does not obey: the name of a file, a class or a tensor, or
/// what a file says.
///
/// Control characters, line breaks and what turns the direction of writing are written as in Rust, such as `\n` and `\u{1b}`.
/// All else stays as it is.
///
/// ```
/// use striate_torch::Shown;
/// assert_eq!(Shown("größe 7").to_string(), "größe 7");
/// assert_eq!(Shown("a\n\u{1b}[31mb").to_string(), r"a\n\u{1b}[31mb");
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Shown<T>(pub T);

impl<T: Display> Display for Shown<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

/// The first of some names, each as [`Shown`] and not too long, and how many more there are: one line of bounded length, whatever a
/// file holds.
///
/// ```
/// use striate_torch::few;
/// assert_eq!(few(["a", "b\n"].iter()), r"a, b\n");
/// assert_eq!(few(["x"; 1000].iter()), "x, x, x, x, x and 995 more");
/// ```
pub fn few<N: AsRef<str>>(names: impl ExactSizeIterator<Item = N>) -> String {
    const SHOWN: usize = 5;
    const LONGEST: usize = 40;
    let rest = names.len().saturating_sub(SHOWN);
    let short = |name: N| match name.as_ref().char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", Shown(&name.as_ref()[..end])),
        None => Shown(name.as_ref()).to_string(),
    };
    let shown: Vec<String> = names.take(SHOWN).map(short).collect();
    if rest > 0 { format!("{} and {rest} more", shown.join(", ")) } else { shown.join(", ") }
}

struct Escaping<'f, 'g>(&'f mut Formatter<'g>);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some((start, odd)) = rest.char_indices().find(|(_, letter)| !is_plain(*letter)) {
            self.0.write_str(&rest[..start])?;
            write!(self.0, "{}", odd.escape_default())?;
            rest = &rest[start + odd.len_utf8()..];
        }
        self.0.write_str(rest)
    }
}

/// Whether [`Shown`] leaves a letter as it is: whether it is shown, and does nothing to the line that it stands in.
///
/// It is not so for Unicode's control characters, its separators of lines and paragraphs, the marks, embeddings, overrides and
/// isolates of bidirectional text, and the tags, which no font shows.
pub fn is_plain(letter: char) -> bool {
    !letter.is_control()
        && !matches!(
            letter,
            '\u{61c}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        let shown = |text: &str| Shown(text).to_string();
        assert_eq!(shown("\u{1b}]0;title\u{7}x"), r"\u{1b}]0;title\u{7}x");
        assert_eq!(shown("a\nb\tc\rd"), r"a\nb\tc\rd");
        assert_eq!(shown("\u{9b}31m\u{7f}\0"), r"\u{9b}31m\u{7f}\u{0}", "C1 controls too");
        assert_eq!(shown("cat\u{202e}gnp.jpg"), r"cat\u{202e}gnp.jpg");
        assert_eq!(shown("\u{2028}\u{2029}\u{2066}\u{feff}\u{e0041}"), r"\u{2028}\u{2029}\u{2066}\u{feff}\u{e0041}");
    }

    #[test]
    fn a_few_names_stand_for_all() {
        assert_eq!([few([""; 0].iter()), few(["x"; 5].iter())], ["", "x, x, x, x, x"]);
        assert_eq!(few(["ö".repeat(40), "ö".repeat(41)].iter()), format!("{0}, {0}...", "ö".repeat(40)));
    }

    #[test]
    fn letters_of_all_writings_stay() {
        for text in ["", "Gänse", "猫", "قطة", "חתול", "👩\u{200d}🔬", "a\\b \"c\" 'd'"] {
            assert_eq!(Shown(text).to_string(), text);
        }
        assert_eq!(Shown(std::path::Path::new("a\nb").display()).to_string(), r"a\nb");
    }
}
