/* AES-GCM over a burst of packets by each API of Intel's ipsec-mb.
 *
 * A packet is 16 octets of head, the text and 16 octets of ICV. Of the head the first 8 octets are the additional
 * data, the others the IV. */
#include <intel-ipsec-mb.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { HEAD = 16, AAD = 8, ICV = 16, SALT = 4, NONCE = 12, BURST = 32 };
enum api { DIRECT, JOB, BURSTS };

struct mb {
	IMB_MGR *manager;
	struct gcm_key_data *keys;
	size_t mask; /* of a packet's number: which key is its own */
	size_t key_len;
	uint8_t salt[SALT];
	struct gcm_context_data context;
	uint8_t nonces[BURST][16], icvs[BURST][ICV];
};

const char *field_mb_version(void) { return imb_get_version_str(); }

void field_mb_free(struct mb *mb)
{
	if (mb->manager)
		free_mb_mgr(mb->manager);
	free(mb->keys);
	free(mb);
}

/* A manager with the code for this arch, or NULL where this CPU has it not. Version 1.3 runs code for any arch that it
 * is asked for, whether the CPU has it or not. */
IMB_MGR *field_mb_manager(int arch)
{
	static const struct {
		void (*init)(IMB_MGR *);
		uint64_t features;
	} archs[] = {
		[IMB_ARCH_SSE] = { init_mb_mgr_sse, IMB_CPUFLAGS_SSE },
		[IMB_ARCH_AVX] = { init_mb_mgr_avx, IMB_CPUFLAGS_AVX },
		[IMB_ARCH_AVX2] = { init_mb_mgr_avx2, IMB_CPUFLAGS_AVX2 },
		[IMB_ARCH_AVX512] = { init_mb_mgr_avx512, IMB_CPUFLAGS_AVX512 },
	};
	IMB_MGR *manager;

	if (arch < IMB_ARCH_SSE || arch > IMB_ARCH_AVX512)
		return NULL;
	manager = alloc_mb_mgr(0);
	if (!manager)
		return NULL;
	if ((manager->features & archs[arch].features) == archs[arch].features) {
		archs[arch].init(manager);
		if (!imb_get_errno(manager) && manager->used_arch == (unsigned)arch)
			return manager;
	}
	free_mb_mgr(manager);
	return NULL;
}

/* By the code for this arch, or NULL where this CPU has it not. The keys follow each other; there are 2^n. */
struct mb *field_mb_new(int arch, const uint8_t *keys, size_t count, size_t key_len, const uint8_t *salt)
{
	struct mb *mb = calloc(1, sizeof(*mb));
	if (!mb)
		return NULL;
	mb->manager = field_mb_manager(arch);
	mb->keys = aligned_alloc(64, count * sizeof(*mb->keys));
	if (!mb->manager || !mb->keys) {
		field_mb_free(mb);
		return NULL;
	}
	mb->mask = count - 1;
	mb->key_len = key_len;
	memcpy(mb->salt, salt, SALT);
	for (size_t i = 0; i < count; i++) {
		if (key_len == IMB_KEY_128_BYTES)
			IMB_AES128_GCM_PRE(mb->manager, keys + i * key_len, &mb->keys[i]);
		else
			IMB_AES256_GCM_PRE(mb->manager, keys + i * key_len, &mb->keys[i]);
	}
	return mb;
}

static inline void set_nonce(struct mb *mb, size_t i, const uint8_t *packet)
{
	memcpy(mb->nonces[i], mb->salt, SALT);
	memcpy(mb->nonces[i] + SALT, packet + AAD, NONCE - SALT);
}

static inline uint64_t differs(const uint8_t *a, const uint8_t *b)
{
	uint64_t x[2], y[2];
	memcpy(x, a, ICV);
	memcpy(y, b, ICV);
	return (x[0] ^ y[0]) | (x[1] ^ y[1]);
}

static inline void direct(struct mb *mb, int open, size_t i, uint8_t *packet, size_t len)
{
	const struct gcm_key_data *key = &mb->keys[i & mb->mask];
	uint8_t *text = packet + HEAD;
	const uint8_t *iv = mb->nonces[i];

	if (mb->key_len == IMB_KEY_128_BYTES) {
		if (open)
			IMB_AES128_GCM_DEC(mb->manager, key, &mb->context, text, text, len, iv, packet, AAD, mb->icvs[i], ICV);
		else
			IMB_AES128_GCM_ENC(mb->manager, key, &mb->context, text, text, len, iv, packet, AAD, text + len, ICV);
	} else {
		if (open)
			IMB_AES256_GCM_DEC(mb->manager, key, &mb->context, text, text, len, iv, packet, AAD, mb->icvs[i], ICV);
		else
			IMB_AES256_GCM_ENC(mb->manager, key, &mb->context, text, text, len, iv, packet, AAD, text + len, ICV);
	}
}

static inline void set_job(struct mb *mb, int open, size_t i, uint8_t *packet, size_t len, IMB_JOB *job)
{
	const struct gcm_key_data *key = &mb->keys[i & mb->mask];

	job->cipher_mode = IMB_CIPHER_GCM;
	job->hash_alg = IMB_AUTH_AES_GMAC;
	job->cipher_direction = open ? IMB_DIR_DECRYPT : IMB_DIR_ENCRYPT;
	job->chain_order = open ? IMB_ORDER_HASH_CIPHER : IMB_ORDER_CIPHER_HASH;
	job->enc_keys = key;
	job->dec_keys = key;
	job->key_len_in_bytes = mb->key_len;
	job->iv = mb->nonces[i];
	job->iv_len_in_bytes = NONCE;
	job->u.GCM.aad = packet;
	job->u.GCM.aad_len_in_bytes = AAD;
	job->src = packet + HEAD;
	job->dst = packet + HEAD;
	job->cipher_start_src_offset_in_bytes = 0;
	job->hash_start_src_offset_in_bytes = 0;
	job->msg_len_to_cipher_in_bytes = len;
	job->msg_len_to_hash_in_bytes = len;
	job->auth_tag_output = open ? mb->icvs[i] : packet + HEAD + len;
	job->auth_tag_output_len_in_bytes = ICV;
}

static inline uint64_t failed(const IMB_JOB *job) { return job->status != IMB_STATUS_COMPLETED; }

/* Seals or opens a burst in place; packet i is at base + i * stride. 1 if all went well. */
int field_mb_run(struct mb *mb, int api, int open, uint8_t *base, size_t stride, const uint32_t *lens, size_t count)
{
	IMB_JOB *job, *jobs[BURST];
	uint64_t bad = 0;
	size_t done = 0;

	switch ((enum api)api) {
	case DIRECT:
		for (size_t i = 0; i < count; i++) {
			set_nonce(mb, i, base + i * stride);
			direct(mb, open, i, base + i * stride, lens[i]);
		}
		done = count;
		break;
	case JOB:
		for (size_t i = 0; i < count; i++) {
			set_nonce(mb, i, base + i * stride);
			job = IMB_GET_NEXT_JOB(mb->manager);
			set_job(mb, open, i, base + i * stride, lens[i], job);
			for (job = IMB_SUBMIT_JOB_NOCHECK(mb->manager); job; job = IMB_GET_COMPLETED_JOB(mb->manager)) {
				bad |= failed(job);
				done++;
			}
		}
		while ((job = IMB_FLUSH_JOB(mb->manager))) {
			bad |= failed(job);
			done++;
		}
		break;
	case BURSTS:
		while (IMB_GET_NEXT_BURST(mb->manager, count, jobs) < count)
			IMB_FLUSH_BURST(mb->manager, count, jobs);
		for (size_t i = 0; i < count; i++) {
			set_nonce(mb, i, base + i * stride);
			set_job(mb, open, i, base + i * stride, lens[i], jobs[i]);
		}
		done = IMB_SUBMIT_BURST_NOCHECK(mb->manager, count, jobs);
		for (size_t i = 0; i < done; i++)
			bad |= failed(jobs[i]);
		if (done < count)
			done += IMB_FLUSH_BURST(mb->manager, count - done, jobs);
		break;
	}
	if (open)
		for (size_t i = 0; i < count; i++)
			bad |= differs(mb->icvs[i], base + i * stride + HEAD + lens[i]);
	return !bad && done == count;
}
