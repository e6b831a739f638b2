use super::*;

fn parse(text: &str) -> Result<Section, String> {
    Section::parse(Path::new("swanctl.conf"), text).map_err(|e| e.to_string())
}

fn value(section: &Section, name: &str) -> Option<String> {
    let (at, key) = name.rsplit_once('.').unwrap_or(("", name));
    let section = if at.is_empty() { section } else { section.of_name(at)? };
    section.value(key).map(str::to_owned)
}

#[test]
fn sections_keys_quotes_and_comments() {
    let top = parse(
        "# a comment\nconnections {\n  home { # here\n local_addrs = 192.0.2.1 ,  %any\n\tversion=2\n\
         local { id = \"C=CH, O=\\\"a # b\\\"\\n\" } children {} }\n}\nlast =\n\
         one { a = 1 } two\n{\n b = x=y:z, w }\n",
    )
    .unwrap();
    let is = |name: &str, wanted: &str| assert_eq!(value(&top, name).as_deref(), Some(wanted), "{name}");
    is("connections.home.local_addrs", "192.0.2.1 , %any");
    is("connections.home.version", "2");
    is("connections.home.local.id", "C=CH, O=\"a # b\"\n");
    is("one.a", "1");
    is("two.b", "x=y:z, w");
    assert!(matches!(top.entry("last").unwrap().content, Content::Value(None)));
    assert_eq!(top.section("connections").unwrap().section("home").unwrap().place.line, 3);
    assert_eq!(top.section("two").unwrap().entry("b").unwrap().place.line, 11);
    assert!(top.section("connections").unwrap().section("home").unwrap().section("children").is_some());
}

#[test]
fn what_is_there_twice_is_one_and_the_last_value_counts() {
    let top = parse("a { x = 1\n y = 2 }\na { y = 3\n z = 4 }").unwrap();
    let names: Vec<_> = top.section("a").unwrap().entries.iter().map(|e| e.name.as_str()).collect();
    assert_eq!(names, ["x", "y", "z"]);
    assert_eq!(value(&top, "a.y").as_deref(), Some("3"));
}

#[test]
fn sections_have_what_others_have() {
    let top = parse(
        "base { x = 1\n y = 2\n inner { p = 1 } }\nmore : base { y = 3\n inner { q = 2 } }\n\
         c { both : more, base { x = \n } }",
    )
    .unwrap();
    assert_eq!(value(&top, "more.x").as_deref(), Some("1"));
    assert_eq!(value(&top, "more.y").as_deref(), Some("3"));
    assert_eq!(value(&top, "c.both.y").as_deref(), Some("3"));
    assert_eq!(value(&top, "c.both.inner.p").as_deref(), Some("1"));
    assert_eq!(value(&top, "c.both.inner.q").as_deref(), Some("2"));
    assert_eq!(value(&top, "c.both.x"), None);
}

#[test]
fn what_is_wrong_is_told_with_its_line_and_shows_no_value() {
    for (text, wanted) in [
        ("a {\n b = 1\n", "swanctl.conf:3: the file ends in a section; a '}' is missing"),
        ("\n}", "swanctl.conf:2: a '}' without a '{'"),
        ("a\nb = 1", "swanctl.conf:2: 'a' has neither a value with '=' nor a section in '{}'"),
        ("= 1", "swanctl.conf:1: a key or a section's name is wanted here"),
        ("secret = \"geheim\n\n", "swanctl.conf:1: this text has no '\"' at its end"),
        ("a : b { }", "swanctl.conf:1: there is no section 'b'; write its full name, as connections.NAME"),
        ("a : { }", "swanctl.conf:1: a section's full name is wanted behind ':'"),
        ("a : b c { }", "swanctl.conf:1: after a section's name behind ':' there is ',' or '{'"),
        ("a : b { }\nb : a { }", "swanctl.conf:1: section 'b' is in itself"),
        ("x = {", "swanctl.conf:1: a value with '{' in it must be in quotes"),
    ] {
        let error = parse(text).unwrap_err();
        assert_eq!(error, wanted, "{text}");
        assert!(!error.contains("geheim"));
    }
    let deep = "a {\n".repeat(40);
    assert_eq!(parse(&deep).unwrap_err(), "swanctl.conf:33: too many sections in each other");
    assert!(!format!("{:?}", parse("secret = geheim").unwrap()).contains("geheim"));
}

#[test]
fn sections_that_grow_by_each_other_are_refused() {
    let mut text = "s0 { a = 1 }\n".to_owned();
    for n in 1..40 {
        text += &format!("s{n} {{ x : s{} {{ }}\n y : s{} {{ }} }}\n", n - 1, n - 1);
    }
    let error = parse(&text).unwrap_err();
    assert!(error.ends_with("from each other"), "{error}");
    // The last first, so that none is known when it is asked for.
    let chain: String = (1..50_000).rev().map(|n| format!("s{n} : s{} {{ }}\n", n - 1)).collect();
    let error = parse(&(chain + "s0 { }")).unwrap_err();
    assert!(error.ends_with("too many sections have something from each other"), "{error}");
}

#[test]
fn files_are_included_by_patterns_in_order() {
    let dir = std::env::temp_dir().join(format!("portcullis-swanctl-{}", std::process::id()));
    fs::create_dir_all(dir.join("conf.d")).unwrap();
    let write = |name: &str, text: &str| fs::write(dir.join(name), text).unwrap();
    write("conf.d/b.conf", "connections { x { v = b } }");
    write("conf.d/a.conf", "connections { x { v = a\n w = a } }");
    write("conf.d/.hidden.conf", "nonsense");
    write("conf.d/c.txt", "nonsense");
    write("swanctl.conf", "include conf.d/*.conf\ninclude none/*.conf\nconnections { include one.conf\n }");
    write("one.conf", "y { z = 1 }");
    let top = Section::read(&dir.join("swanctl.conf"));
    write("loop.conf", "a = 1\ninclude loop.conf\n");
    let endless = Section::read(&dir.join("loop.conf"));
    let missing = Section::read(&dir.join("missing.conf"));
    fs::remove_dir_all(&dir).unwrap();
    let top = top.unwrap();
    assert_eq!(value(&top, "connections.x.v").as_deref(), Some("b"));
    assert_eq!(value(&top, "connections.x.w").as_deref(), Some("a"));
    assert_eq!(value(&top, "connections.y.z").as_deref(), Some("1"));
    assert!(top.section("connections").unwrap().section("x").unwrap().place.file.ends_with("conf.d/a.conf"));
    assert!(endless.unwrap_err().to_string().ends_with("loop.conf:2: files include each other"));
    assert!(matches!(missing, Err(ConfigError::Read { .. })));
}

#[test]
fn many_names_are_found_as_few_are() {
    let text =
        |names: std::ops::Range<usize>| names.map(|n| format!("s{n} {{ v = {n} }}\n")).collect::<String>();
    for count in [1, 15, 16, 17, 18, 1_000] {
        let top = parse(&(text(0..count) + "s0 { w = x }\n" + &text(0..count))).unwrap();
        assert_eq!(top.entries().len(), count);
        for n in 0..count {
            assert_eq!(value(&top, &format!("s{n}.v")).unwrap(), n.to_string());
        }
        assert_eq!((value(&top, "s0.w").as_deref(), value(&top, &format!("s{count}.v"))), (Some("x"), None));
    }
}

#[test]
fn patterns() {
    for (pattern, name, wanted) in [
        ("*.conf", "a.conf", true),
        ("*.conf", "a.conf.bak", false),
        ("a*b*c", "axxbyyc", true),
        ("a*b*c", "axxbyy", false),
        ("a?c", "abc", true),
        ("a?c", "ac", false),
        ("*", "", true),
        ("**x", "yx", true),
    ] {
        assert_eq!(is_match(pattern.as_bytes(), name.as_bytes()), wanted, "{pattern} {name}");
    }
}

#[test]
fn a_quoted_text_does_not_grow_while_it_is_read() {
    for written in
        ["aaaaaaaaaaaaaaaaaaaa", r#"aaaa\"aaaa\"aaaa\"aa"#, "aaaa\\\naaaaaaaaaaaa\\\\", "ééééééé\\é"]
    {
        let top = parse(&format!("x = \"{written}\"\ny = \"\"\n")).unwrap();
        let Content::Value(Some(text)) = &top.entry("x").unwrap().content else { panic!("no value") };
        assert_eq!(text.capacity(), written.len(), "{written}");
    }
}
