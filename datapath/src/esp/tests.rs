use super::*;

#[test]
fn ecn_is_combined_as_the_table_says() {
    // RFC 6040 §4.2, figure 4: rows are inner Not-ECT, ECT(0), ECT(1), CE; columns outer, in the same order.
    const ECT_0: u8 = 2;
    let order = [NOT_ECT, ECT_0, ECT_1, CE];
    let table = [
        [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None],
        [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)],
        [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)],
        [Some(CE), Some(CE), Some(CE), Some(CE)],
    ];
    for (row, inner) in order.into_iter().enumerate() {
        for (column, outer) in order.into_iter().enumerate() {
            assert_eq!(decapsulated_ecn(inner, outer), table[row][column], "inner {inner}, outer {outer}");
        }
    }
}
