use super::*;

#[test]
fn numbers_stand_in_front_of_what_is_told() {
    let octets = packed(&[(7, 1), (9, 2)], b"told");
    assert_eq!(unpacked(&octets), Some((vec![(7, 1), (9, 2)], &b"told"[..])));
    assert_eq!(unpacked(&packed(&[], b"")), Some((vec![], &b""[..])));
    for len in 0..20 {
        assert_eq!(unpacked(&octets[..len]), None);
    }
}
