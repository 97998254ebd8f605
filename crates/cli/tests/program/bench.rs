//! Measuring, with loads so small that the numbers mean nothing.

use std::fs;

use super::support::Place;

#[test]
fn all_stores_get_the_same_loads_and_leave_nothing() {
    let place = Place::new();
    let url = format!("redb:{}", place.path("disk").display());
    let args = [
        "bench",
        &url,
        "mem:",
        "--against",
        "iroh-fs",
        "--scale",
        "0.002",
        "--runs",
        "2",
        "--html",
        "report.html",
    ];
    let report = &place.json(&args)[0];
    let stores: Vec<_> = report["stores"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| &s[0])
        .collect();
    assert_eq!(stores, ["redb", "mem", "iroh-fs"]);
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 9);
    for row in rows {
        for (column, cell) in row["cells"].as_array().unwrap().iter().enumerate() {
            let samples = cell["samples"].as_array().unwrap();
            // A store in memory takes no disk space and cannot be opened again.
            let measured =
                column != 1 || !["disk-1k", "open"].contains(&row["load"].as_str().unwrap());
            assert_eq!(samples.len(), if measured { 2 } else { 0 }, "{row}");
            assert!(
                samples.iter().all(|sample| sample.as_f64().unwrap() > 0.0),
                "{row}"
            );
        }
    }
    let page = fs::read_to_string(place.path("report.html")).unwrap();
    assert_eq!(page.matches("<svg").count(), 9);
    assert_eq!(fs::read_dir(place.path("disk")).unwrap().count(), 0);
}

#[test]
fn a_folder_with_something_in_it_is_not_touched() {
    let place = Place::new();
    place.write("a", "A");
    place.ok(&["add", "a"]);
    let said = place.fails(2, &["bench", &place.url().to_string()]);
    assert!(said.contains("is not empty\n"), "{said}");
    assert_eq!(place.ok(&["cat", "a"]), "A");
    place.fails(2, &["bench", "mem:", "--scale", "1000"]);
}
