// rawpg: the login exchange. See rawpg.hpp.
//
// SCRAM keys are kept per (password, salt, iterations), because thousands of logins with 4096 rounds each would measure
// OpenSSL and not the server. Must not know sockets.
#include "rawpg.hpp"

#include <cstdlib>
#include <map>
#include <mutex>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <openssl/sha.h>

namespace rawpg
{

Bytes Target::startup_packet() const
{
	Pairs all{{"user", user}, {"database", database}};
	all.insert(all.end(), params.begin(), params.end());
	return wire::startup_packet(all, protocol);
}

static Bytes hmac(const Bytes &key, const Bytes &data)
{
	unsigned char out[EVP_MAX_MD_SIZE];
	unsigned int size = 0;
	HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), reinterpret_cast<const unsigned char *>(data.data()),
	     data.size(), out, &size);
	return Bytes(reinterpret_cast<char *>(out), size);
}

static Bytes salted_password(const Bytes &secret, const Bytes &salt, int iterations)
{
	static std::mutex lock;
	static std::map<Bytes, Bytes> known;
	Bytes name = secret + '\0' + salt + '\0' + std::to_string(iterations);
	std::lock_guard<std::mutex> hold(lock);
	Bytes &key = known[name];
	if (key.empty()) {
		key.resize(SHA256_DIGEST_LENGTH);
		PKCS5_PBKDF2_HMAC(secret.data(), static_cast<int>(secret.size()),
		                  reinterpret_cast<const unsigned char *>(salt.data()), static_cast<int>(salt.size()),
		                  iterations, EVP_sha256(), SHA256_DIGEST_LENGTH, reinterpret_cast<unsigned char *>(&key[0]));
	}
	return key;
}

Login::Step Login::fail(const std::string &why)
{
	error_ = why;
	return Step::Failed;
}

Login::Step Login::sasl_start(const Bytes &body, Bytes &out)
{
	if (body.find("SCRAM-SHA-256" + Bytes(1, '\0'), 4) == Bytes::npos)
		return fail("server offers no SCRAM-SHA-256");
	unsigned char raw[18];
	RAND_bytes(raw, sizeof raw);
	client_first_ = "n=,r=" + base64(Bytes(reinterpret_cast<char *>(raw), sizeof raw));
	Bytes first = "n,," + client_first_;
	out += wire::sasl_first("SCRAM-SHA-256", first);
	return Step::More;
}

static Bytes scram_attribute(const Bytes &text, char name)
{
	size_t at = 0;
	while (at < text.size()) {
		size_t end = text.find(',', at);
		if (end == Bytes::npos)
			end = text.size();
		if (end > at + 1 && text[at] == name && text[at + 1] == '=')
			return text.substr(at + 2, end - at - 2);
		at = end + 1;
	}
	return {};
}

Login::Step Login::sasl_continue(const Bytes &data, Bytes &out)
{
	Bytes nonce = scram_attribute(data, 'r'), salt = unbase64(scram_attribute(data, 's'));
	int iterations = atoi(scram_attribute(data, 'i').c_str());
	Bytes own = client_first_.substr(5);
	if (nonce.size() <= own.size() || nonce.compare(0, own.size(), own) != 0 || salt.empty())
		return fail("SCRAM: bad server-first-message: " + data);
	if (iterations < 1 || iterations > 1000000)
		return fail("SCRAM: bad iteration count in " + data);
	Bytes salted = salted_password(target_.password, salt, iterations);
	Bytes client_key = hmac(salted, "Client Key");
	Bytes final_bare = "c=biws,r=" + nonce;
	Bytes all = client_first_ + "," + data + "," + final_bare;
	Bytes proof = hmac(sha256(client_key), all);
	for (size_t i = 0; i < proof.size(); i++)
		proof[i] = static_cast<char>(proof[i] ^ client_key[i]);
	server_signature_ = base64(hmac(hmac(salted, "Server Key"), all));
	out += message('p', final_bare + ",p=" + base64(proof));
	return Step::More;
}

Login::Step Login::sasl_final(const Bytes &data)
{
	if (server_signature_.empty() || scram_attribute(data, 'v') != server_signature_)
		return fail("SCRAM: the server's signature is wrong");
	return Step::More;
}

Login::Step Login::authentication(const Bytes &body, Bytes &out)
{
	const uint32_t code = Reader(body).u32();
	switch (code) {
	case 0:
		return Step::More;
	case 3:
		out += password(target_.password);
		return Step::More;
	case 5:
		out += password("md5" + md5_hex(md5_hex(target_.password + target_.user) + body.substr(4, 4)));
		return Step::More;
	case 10:
		return sasl_start(body, out);
	case 11:
		return sasl_continue(body.substr(4), out);
	case 12:
		return sasl_final(body.substr(4));
	default:
		return fail("authentication request " + std::to_string(code));
	}
}

Login::Step Login::feed(const Message &m, Bytes &out)
{
	if (m.type == 'R' && m.body.size() >= 4)
		return authentication(m.body, out);
	if (m.type == 'E') {
		sqlstate_ = field(m.body, 'C');
		return fail(field(m.body, 'S') + " " + sqlstate_ + ": " + field(m.body, 'M'));
	}
	if (m.type == 'S') {
		size_t end = m.body.find('\0');
		if (end == Bytes::npos || m.body.back() != '\0')
			return fail("malformed ParameterStatus");
		parameters[m.body.substr(0, end)] = m.body.substr(end + 1, m.body.size() - end - 2);
		return Step::More;
	}
	if (m.type == 'K' && m.body.size() >= 8) {
		pid = Reader(m.body).u32();
		key = m.body.substr(4);
		return Step::More;
	}
	if (m.type == 'N' || m.type == 'v')
		return Step::More;
	if (m.type == 'Z')
		return m.body == "I" ? Step::Done : fail("first ReadyForQuery is not idle: " + brief(m));
	return fail("unexpected in login: " + brief(m));
}

} // namespace rawpg
