use super::{compare::Verdict, *};
use serde_json::json;

fn report() -> Report {
    let mut report = Report::new("a <title>", "in memory", json!({ "key": 1 }));
    report.measure("NDR", "Mpps", true, vec![10.0, 10.1, 9.9]);
    let mut table = Table::new(&["Load", "Mpps"]);
    table.rows.push(vec!["idle & more".to_owned(), "1".to_owned()]);
    let series = Series { name: "one".to_owned(), points: vec![(1.0, 2.0), (10.0, 30.0), (100.0, 25.0)] };
    let plots = [(false, false), (false, true), (true, false), (true, true)].map(|(x, y)| Plot {
        title: "a plot".to_owned(),
        x: Axis { label: "Mpps".to_owned(), log: x },
        y: Axis { label: "us".to_owned(), log: y },
        series: vec![series.clone()],
    });
    report.with("Rates", "What was found.", table, plots.into())
}

fn with(samples: &[f64]) -> Report {
    let mut report = report();
    report.figures[0].samples = samples.to_vec();
    report
}

#[test]
fn a_report_is_read_as_it_was_written() {
    let dir = std::env::temp_dir().join(format!("portcullis-report-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join("report.json");
    fs::write(&path, report().to_form(Form::Json).unwrap()).unwrap();
    assert_eq!(Report::read(&path).unwrap(), report());
    for (text, told) in [
        ("nothing", "no JSON"),
        ("{}", "it has no version"),
        ("{\"version\": 99}", "a report of version 99, and this reads 1"),
        ("{\"version\": 1}", "missing field"),
    ] {
        fs::write(&path, text).unwrap();
        let error = Report::read(&path).unwrap_err().to_string();
        assert!(error.contains(told) && error.contains("report.json"), "{error}");
    }
    fs::remove_dir_all(&dir).unwrap();
    assert!(Report::read(&path).unwrap_err().to_string().contains("report.json"));
}

#[test]
fn each_form_has_what_was_measured() {
    let report = report();
    let text = report.to_form(Form::Text).unwrap();
    assert!(text.starts_with("a <title>, in memory\n"), "{text}");
    assert!(text.contains("  Load         Mpps\n  idle & more     1\n"), "{text}");
    let markdown = report.to_form(Form::Markdown).unwrap();
    assert!(
        markdown.contains("## Rates\n\nWhat was found.\n\n| Load        | Mpps |\n|---|--:|\n"),
        "{markdown}"
    );
    let html = report.to_form(Form::Html).unwrap();
    assert!(
        html.contains("<h1>a &lt;title&gt;, in memory</h1>") && html.contains("<td>idle &amp; more</td>")
    );
    assert_eq!(html.matches("<svg").count(), 4);
    assert!(
        !html.contains("http://")
            || html.matches("http://").count() == html.matches("http://www.w3.org").count()
    );
}

#[test]
fn a_file_has_the_form_of_its_name() {
    assert_eq!(Form::of(Path::new("a/b.html")), Ok(Form::Html));
    assert!(Form::of(Path::new("a/b")).unwrap_err().contains("a/b: its name must end in"));
}

#[test]
fn figures_differ_by_more_than_they_scatter_or_not_at_all() {
    let of = |a: &[f64], b: &[f64]| {
        let found = compare::differences(&with(a), &with(b)).unwrap();
        found[0].clone()
    };
    let better = of(&[10.0, 10.1, 9.9], &[11.0, 11.1, 10.9]);
    assert_eq!(better.verdict, Verdict::Better);
    assert!((better.change.0 - 0.1).abs() < 1e-9);
    // Welch of equal variances and numbers: 4 degrees of freedom, t 2.776, a half width of t * 0.1 * sqrt(2/3) of 10.
    let (low, high) = better.change.1.unwrap();
    let half = 2.776 * 0.1 * (2.0f64 / 3.0).sqrt() / 10.0;
    assert!((low - (0.1 - half)).abs() < 1e-6 && (high - (0.1 + half)).abs() < 1e-6, "{low} {high}");
    assert_eq!(of(&[11.0, 11.1, 10.9], &[10.0, 10.1, 9.9]).verdict, Verdict::Worse);
    assert_eq!(of(&[10.0, 10.5, 9.5], &[10.1, 10.6, 9.6]).verdict, Verdict::Same);
    assert_eq!(of(&[10.0], &[11.0]).verdict, Verdict::Once);
    assert_eq!(of(&[10.0, 10.0], &[10.0, 10.0]).verdict, Verdict::Same);
    // Of nothing there is no part, and it differs all the same.
    assert_eq!(of(&[0.0, 0.0], &[0.0, 0.0]).verdict, Verdict::Same);
    let from_nothing = of(&[0.0, 0.0], &[1.0, 1.0]);
    assert!(from_nothing.verdict == Verdict::Better && from_nothing.change.0.is_nan());
    assert_eq!(compare::table(&[from_nothing]).rows[0][3], "-");
}

#[test]
fn what_the_second_does_not_have_is_worse() {
    let mut both = report();
    both.measure("PDR", "Mpps", true, vec![11.0, 11.0]);
    let mut none = both.clone();
    none.figures[1].samples.clear();
    for second in [report(), none] {
        let found = compare::differences(&both, &second).unwrap();
        let verdicts: Vec<_> = found.iter().map(|d| d.verdict).collect();
        assert_eq!(verdicts, [Verdict::Same, Verdict::Gone]);
        assert_eq!(
            compare::table(&found).rows[1][1..],
            ["11.000000 Mpps", "-", "-", "-", "worse: not in the second"]
        );
        // What only the second has says nothing.
        assert_eq!(compare::differences(&second, &both).unwrap().len(), 1);
    }
}

#[test]
fn what_cannot_be_compared_is_said() {
    let veth = Report { taken: "over veth".to_owned(), ..report() };
    assert!(compare::differences(&report(), &veth).unwrap_err().contains("over veth"));
    let none = Report { figures: vec![], ..report() };
    assert!(compare::differences(&report(), &none).unwrap_err().contains("no figure is in both"));
    assert_eq!(compare::table(&compare::differences(&report(), &report()).unwrap()).rows.len(), 1);
}
