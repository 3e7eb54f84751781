/*
 * A security key in software, as OpenSSH loads one with SecurityKeyProvider: Ed25519 only, nobody has to touch it.
 * The functions and structures are those of OpenSSH's PROTOCOL.u2f and sk-api.h, version 0x000a0000 of the interface.
 */
#include <openssl/evp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define VERSION 0x000a0000
#define ED25519 1
#define VERIFY 0x04
#define GENERAL -1
#define UNSUPPORTED -2
#define PIN_REQUIRED -3
#define LENGTH 32
#define PIN "60415937"

struct sk_option;
struct sk_resident_key;

struct sk_enroll_response {
	uint8_t flags;
	uint8_t *public_key;
	size_t public_key_len;
	uint8_t *key_handle;
	size_t key_handle_len;
	uint8_t *signature;
	size_t signature_len;
	uint8_t *attestation_cert;
	size_t attestation_cert_len;
	uint8_t *authdata;
	size_t authdata_len;
};

struct sk_sign_response {
	uint8_t flags;
	uint32_t counter;
	uint8_t *sig_r;
	size_t sig_r_len;
	uint8_t *sig_s;
	size_t sig_s_len;
};

uint32_t
sk_api_version(void)
{
	return VERSION;
}

/* The key handle, which OpenSSH keeps in the key file, is the private key itself. */
int
sk_enroll(uint32_t alg, const uint8_t *challenge, size_t challenge_len, const char *application, uint8_t flags,
    const char *pin, struct sk_option **options, struct sk_enroll_response **answer)
{
	struct sk_enroll_response *made = calloc(1, sizeof *made);
	EVP_PKEY *key = alg == ED25519 ? EVP_PKEY_Q_keygen(NULL, NULL, "ED25519") : NULL;
	size_t length = LENGTH;

	if (made == NULL || key == NULL)
		return UNSUPPORTED;
	made->flags = flags;
	made->public_key_len = made->key_handle_len = LENGTH;
	made->public_key = calloc(1, LENGTH);
	made->key_handle = calloc(1, LENGTH);
	made->signature = calloc(1, 1);
	made->attestation_cert = calloc(1, 1);
	made->authdata = calloc(1, 1);
	if (EVP_PKEY_get_raw_public_key(key, made->public_key, &length) != 1 ||
	    EVP_PKEY_get_raw_private_key(key, made->key_handle, &length) != 1)
		return GENERAL;
	EVP_PKEY_free(key);
	*answer = made;
	return 0;
}

/* Sign SHA256(application), the flags, a counter and SHA256(data). */
int
sk_sign(uint32_t alg, const uint8_t *data, size_t data_len, const char *application, const uint8_t *key_handle,
    size_t key_handle_len, uint8_t flags, const char *pin, struct sk_option **options,
    struct sk_sign_response **answer)
{
	struct sk_sign_response *made = calloc(1, sizeof *made);
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	EVP_PKEY *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, key_handle, key_handle_len);
	uint8_t text[LENGTH + 5 + LENGTH];

	if ((flags & VERIFY) && (pin == NULL || strcmp(pin, PIN) != 0))
		return PIN_REQUIRED;
	if (alg != ED25519 || made == NULL || context == NULL || key == NULL)
		return UNSUPPORTED;
	EVP_Digest(application, strlen(application), text, NULL, EVP_sha256(), NULL);
	memcpy(text + LENGTH, (uint8_t[]){flags, 0, 0, 0, 1}, 5);
	EVP_Digest(data, data_len, text + LENGTH + 5, NULL, EVP_sha256(), NULL);
	made->flags = flags;
	made->counter = 1;
	made->sig_r_len = 64;
	made->sig_r = calloc(1, made->sig_r_len);
	if (EVP_DigestSignInit(context, NULL, NULL, NULL, key) != 1 ||
	    EVP_DigestSign(context, made->sig_r, &made->sig_r_len, text, sizeof text) != 1)
		return GENERAL;
	EVP_MD_CTX_free(context);
	EVP_PKEY_free(key);
	*answer = made;
	return 0;
}

int
sk_load_resident_keys(const char *pin, struct sk_option **options, struct sk_resident_key ***keys, size_t *count)
{
	return UNSUPPORTED;
}
