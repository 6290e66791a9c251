//! Answers beside true labels.

use serde_json::{Value, json};

use crate::harness::*;

#[test]
fn accuracy_f1_and_confusion_are_those_of_the_rows() {
    let dir = Dir::new();
    let input = dir.write("in.jsonl", jsonl(&documents(40)));
    scored(&[&input, "-o", &dir.name("plain.jsonl")]);
    let given: Vec<String> = dir
        .lines("plain.jsonl")
        .iter()
        .map(|row| row["topic"].as_str().unwrap().to_owned())
        .collect();
    // Every fourth true label is another one; ids, Arabic and English names are known.
    let names = [
        ("politics", "سياسة"),
        ("economy", "Economy"),
        ("sport", "رياضة"),
        ("health", "HEALTH"),
        ("weather", "طقس"),
    ];
    let name = |id: &str| names.iter().find(|(known, _)| *known == id).unwrap().1;
    // One class has one row.
    let rare =
        names.iter().map(|(id, _)| *id).find(|id| *id != "sport" && !given.contains(&(*id).into()));
    let rare = rare.expect("a class that is never given");
    let truth = |row: usize| match row {
        20 => rare,
        row if row % 4 == 3 => "sport",
        row => given[row].as_str(),
    };
    let mut rows = documents(40);
    for (index, row) in rows.iter_mut().enumerate() {
        let label = if index % 2 == 0 { truth(index) } else { name(truth(index)) };
        row["gold"] = json!(label);
    }
    rows[10]["gold"] = json!("astrology");
    rows[11]["gold"] = Value::Null;
    rows[12].as_object_mut().unwrap().remove("gold");
    let input = dir.write("gold.jsonl", jsonl(&rows));
    let args = [
        &input,
        "-o",
        &dir.name("a.jsonl"),
        "--evaluate",
        "gold:topic",
        "--json",
        "--part-rows",
        "9",
    ];
    let summary: Value = serde_json::from_str(&scored(&args)).unwrap();
    let found = &summary["evaluations"][0];

    let counted: Vec<usize> = (0..40).filter(|row| !(10..=12).contains(row)).collect();
    let right = counted.iter().filter(|&&row| truth(row) == given[row]).count();
    let accuracy = right as f64 / counted.len() as f64;
    assert_eq!(found["rows"], counted.len());
    assert!((found["accuracy"].as_f64().unwrap() - accuracy).abs() < 1e-12);
    assert_eq!(found["unknown"], json!([["astrology", 1]]));
    assert_eq!(found["missing_rows"], 2);
    let mut f1s = Vec::new();
    for (index, (label, _)) in names.iter().enumerate() {
        let class = &found["classes"][index];
        let of =
            |wanted: &dyn Fn(usize) -> bool| counted.iter().filter(|&&row| wanted(row)).count();
        let support = of(&|row| truth(row) == *label);
        let hits = of(&|row| truth(row) == *label && given[row] == *label);
        let answers = of(&|row| given[row] == *label);
        assert_eq!((&class["label"], &class["support"]), (&json!(label), &json!(support)));
        let f1 = 2.0 * hits as f64 / (support + answers).max(1) as f64;
        assert!((class["f1"].as_f64().unwrap() - f1).abs() < 1e-12, "{class}");
        assert_eq!(found["confusion"][index][index], hits);
        if support > 0 {
            f1s.push((support, f1));
        }
    }
    for (key, least) in [("macro_f1", 1), ("macro_f1_frequent", 5)] {
        let counting = f1s.iter().filter(|(support, _)| *support >= least);
        let counting: Vec<f64> = counting.map(|(_, f1)| *f1).collect();
        let mean = counting.iter().sum::<f64>() / counting.len() as f64;
        assert!((found[key].as_f64().unwrap() - mean).abs() < 1e-12, "{key}");
    }
    assert_ne!(found["macro_f1"], found["macro_f1_frequent"]);

    let report = dir.name("report.html");
    let output = dir.name("b.jsonl");
    let shown = scored(&[&input, "-o", &output, "--evaluate", "gold:topic", "--report", &report]);
    assert!(shown.contains(" classes with 5 rows or more)"), "{shown}");
    let page = std::fs::read_to_string(&report).unwrap();
    assert!(page.contains(" classes with 5 rows or more</div>"), "{page}");
    let line = format!("topic beside 37 true labels: accuracy {:.1} %", accuracy * 100.0);
    assert!(shown.contains(&line), "{line} in {shown}");
    assert!(shown.contains("\"astrology\" (1)"), "{shown}");
}

#[test]
fn it_is_clear_whose_labels_they_are() {
    let dir = Dir::new();
    let mut rows = documents(3);
    for row in &mut rows {
        row["topic"] = json!("sport");
    }
    let input = dir.write("in.jsonl", jsonl(&rows));
    let out = dir.name("out.jsonl");
    let json = scored(&[&input, "-o", &out, "--evaluate", "topic", "--json"]);
    let summary: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(summary["evaluations"][0]["task"], "topic", "by the column's name");
    let other = dir.name("other.jsonl");
    fails(&[&input, "-o", &other, "--evaluate", "section"], 2, "section:TASK");
    fails(
        &[&input, "-o", &other, "--evaluate", "section:tone"],
        2,
        "the tasks are topic, sentiment",
    );
}

#[test]
fn unknown_labels_are_counted_over_all_parts() {
    let dir = Dir::new();
    let mut rows = documents(60);
    for (index, row) in rows.iter_mut().enumerate() {
        // Five begin the first part and ten end the last; between them there are more labels than are listed.
        let other = format!("label {index}");
        let frequent = !(5..50).contains(&index);
        row["gold"] = json!(if frequent { "zodiac" } else { &other });
    }
    let input = dir.write("gold.jsonl", jsonl(&rows));
    let out = dir.name("a.jsonl");
    let args = [&input, "-o", &out, "--evaluate", "gold:topic", "--json", "--part-rows", "30"];
    let summary: Value = serde_json::from_str(&scored(&args)).unwrap();
    let found = &summary["evaluations"][0];
    assert_eq!(found["unknown_rows"], 60);
    assert_eq!(found["unknown"].as_array().unwrap().len(), 20);
    assert_eq!(found["unknown"][0], json!(["zodiac", 15]));
}
