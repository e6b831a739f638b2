/* AES-128-CBC with HMAC-SHA2-256-128 by Intel's ipsec-mb, one packet at a time: submitted, and flushed.
 *
 * A packet is 8 octets of head, 16 of IV, the text and 16 octets of ICV. */
#include <intel-ipsec-mb.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { HEAD = 8, IV = 16, ICV = 16, BLOCK = 64 };

struct cbc {
	DECLARE_ALIGNED(uint32_t encrypt[15 * 4], 16);
	DECLARE_ALIGNED(uint32_t decrypt[15 * 4], 16);
	DECLARE_ALIGNED(uint8_t inner[IMB_SHA256_DIGEST_SIZE_IN_BYTES], 16);
	DECLARE_ALIGNED(uint8_t outer[IMB_SHA256_DIGEST_SIZE_IN_BYTES], 16);
	IMB_MGR *manager;
};

/* Of ipsec_mb.c. */
IMB_MGR *field_mb_manager(int arch);

void field_cbc_free(struct cbc *cbc)
{
	free_mb_mgr(cbc->manager);
	free(cbc);
}

/* By the code for this arch, or NULL where this CPU has it not. Keys of 16 and 32 octets. */
struct cbc *field_cbc_new(int arch, const uint8_t *key, const uint8_t *mac_key)
{
	uint8_t inner[BLOCK], outer[BLOCK];
	struct cbc *cbc = aligned_alloc(64, (sizeof(*cbc) + 63) / 64 * 64);
	if (!cbc)
		return NULL;
	cbc->manager = field_mb_manager(arch);
	if (!cbc->manager) {
		free(cbc);
		return NULL;
	}
	IMB_AES_KEYEXP_128(cbc->manager, key, cbc->encrypt, cbc->decrypt);
	memset(inner, 0x36, BLOCK);
	memset(outer, 0x5c, BLOCK);
	for (size_t i = 0; i < 32; i++) {
		inner[i] ^= mac_key[i];
		outer[i] ^= mac_key[i];
	}
	IMB_SHA256_ONE_BLOCK(cbc->manager, inner, cbc->inner);
	IMB_SHA256_ONE_BLOCK(cbc->manager, outer, cbc->outer);
	return cbc;
}

/* Seals or opens a packet of `len` octets in place; the IV is there. 1 if all went well. */
int field_cbc_run(struct cbc *cbc, int open, uint8_t *packet, size_t len)
{
	uint8_t icv[ICV];
	size_t text = len - HEAD - IV - ICV, differs = 0;
	IMB_JOB *job = IMB_GET_NEXT_JOB(cbc->manager);

	job->cipher_mode = IMB_CIPHER_CBC;
	job->hash_alg = IMB_AUTH_HMAC_SHA_256;
	job->cipher_direction = open ? IMB_DIR_DECRYPT : IMB_DIR_ENCRYPT;
	job->chain_order = open ? IMB_ORDER_HASH_CIPHER : IMB_ORDER_CIPHER_HASH;
	job->enc_keys = cbc->encrypt;
	job->dec_keys = cbc->decrypt;
	job->key_len_in_bytes = IMB_KEY_128_BYTES;
	job->iv = packet + HEAD;
	job->iv_len_in_bytes = IV;
	job->src = packet;
	job->dst = packet + HEAD + IV;
	job->cipher_start_src_offset_in_bytes = HEAD + IV;
	job->msg_len_to_cipher_in_bytes = text;
	job->hash_start_src_offset_in_bytes = 0;
	job->msg_len_to_hash_in_bytes = HEAD + IV + text;
	job->u.HMAC._hashed_auth_key_xor_ipad = cbc->inner;
	job->u.HMAC._hashed_auth_key_xor_opad = cbc->outer;
	job->auth_tag_output = open ? icv : packet + HEAD + IV + text;
	job->auth_tag_output_len_in_bytes = ICV;
	job = IMB_SUBMIT_JOB_NOCHECK(cbc->manager);
	if (!job)
		job = IMB_FLUSH_JOB(cbc->manager);
	if (!job || job->status != IMB_STATUS_COMPLETED)
		return 0;
	for (size_t i = 0; open && i < ICV; i++)
		differs |= icv[i] ^ packet[HEAD + IV + text + i];
	return !differs;
}
