use std::ffi::OsStr;

use super::*;

#[test]
fn names_are_neither_markup_nor_urls() {
    assert_eq!(escaped_url(OsStr::new("a:b?c#d/")), "a%3Ab%3Fc%23d/");
    assert_eq!(escaped_url(OsStr::from_bytes(b"\xff<")), "%FF%3C");
    assert_eq!(escaped_html("<a href=\"'&"), "&lt;a href=&#34;&#39;&amp;");
}
