//! Reads files of AES-GCM vectors, in the form of NIST's.

/// One vector.
#[derive(Clone, Default)]
pub struct Vector {
    pub name: String,
    pub key: Vec<u8>,
    pub iv: Vec<u8>,
    pub aad: Vec<u8>,
    /// The plaintext, or none if the tag is wrong.
    pub plain: Option<Vec<u8>>,
    pub cipher: Vec<u8>,
    /// Of as many octets as the ICV.
    pub tag: Vec<u8>,
}

/// The vectors of a file beside this one.
pub fn read(file: &str) -> Vec<Vector> {
    let path = format!("{}/tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let mut vectors = vec![];
    for (n, paragraph) in text.split("\n\n").enumerate() {
        let mut v = Vector { name: n.to_string(), ..Vector::default() };
        let mut is_vector = false;
        for line in paragraph.lines().filter(|l| !l.starts_with('#') && *l != "FAIL") {
            let (name, value) = line.split_once(" =").unwrap_or_else(|| panic!("{path}: {line}"));
            let value = value.trim();
            is_vector = true;
            match name {
                "Count" => v.name = value.to_owned(),
                "Key" => v.key = hex(value),
                "IV" => v.iv = hex(value),
                "AAD" => v.aad = hex(value),
                "PT" => v.plain = Some(hex(value)),
                "CT" => v.cipher = hex(value),
                "Tag" => v.tag = hex(value),
                _ => panic!("{path}: {name}"),
            }
        }
        if is_vector {
            vectors.push(v);
        }
    }
    vectors
}

fn hex(digits: &str) -> Vec<u8> {
    assert!(digits.len().is_multiple_of(2), "{digits}");
    (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap()).collect()
}
