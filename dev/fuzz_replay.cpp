// dev/fuzz_replay.cpp - runs a fuzz target without libFuzzer: over its corpus, and over mutations of it.
//
// Owns nothing. Needs one object file with LLVMFuzzerTestOneInput. Usage: <target> [corpus directory or file]...
// Leaves nothing behind; a crash or a sanitizer report is the failure, and the input that caused it is then
// printed as hexadecimal (the last line before the report), so that it can become a corpus file. The mutations come
// from a fixed seed: two runs of one tree do the same.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
extern "C" int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));
extern "C" void __sanitizer_set_death_callback(void (*)()) __attribute__((weak));

namespace
{

using Input = std::vector<uint8_t>;
const Input *g_current = nullptr;
constexpr size_t kMutationsPerTarget = 20000;
constexpr size_t kMaxInput = 4096;

void print_current()
{
	if (!g_current)
		return;
	std::fprintf(stderr, "\ninput (%zu bytes): ", g_current->size());
	for (uint8_t byte : *g_current)
		std::fprintf(stderr, "%02x", byte);
	std::fprintf(stderr, "\n");
}

void run(const Input &input)
{
	g_current = &input;
	LLVMFuzzerTestOneInput(input.data(), input.size());
	g_current = nullptr;
}

Input read_file(const std::filesystem::path &path)
{
	std::ifstream file(path, std::ios::binary);
	return Input(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
}

std::vector<Input> read_corpus(int argc, char **argv)
{
	std::vector<std::filesystem::path> paths;
	for (int i = 1; i < argc; i++) {
		std::filesystem::path path(argv[i]);
		if (std::filesystem::is_directory(path)) {
			for (const auto &entry : std::filesystem::recursive_directory_iterator(path))
				if (entry.is_regular_file())
					paths.push_back(entry.path());
		} else if (std::filesystem::exists(path)) {
			paths.push_back(path);
		}
	}
	std::sort(paths.begin(), paths.end());
	std::vector<Input> corpus;
	for (const auto &path : paths)
		corpus.push_back(read_file(path));
	return corpus;
}

void mutate(Input &input, const std::vector<Input> &corpus, std::mt19937 &random)
{
	size_t edits = 1 + random() % 4;
	for (size_t i = 0; i < edits; i++) {
		size_t at = input.empty() ? 0 : random() % input.size();
		switch (random() % 6) {
		case 0:
			if (!input.empty())
				input[at] = static_cast<uint8_t>(random());
			break;
		case 1:
			if (!input.empty())
				input[at] = static_cast<uint8_t>(input[at] ^ (1u << (random() % 8)));
			break;
		case 2:
			input.insert(input.begin() + static_cast<std::ptrdiff_t>(at), static_cast<uint8_t>(random() % 128));
			break;
		case 3:
			input.resize(at);
			break;
		case 4: // a length field of an odd kind
			for (size_t k = 0; k < 4 && at + k < input.size(); k++)
				input[at + k] = random() % 2 ? 0xff : 0x00;
			break;
		default: {
			const Input &other = corpus[random() % corpus.size()];
			input.insert(input.end(), other.begin(), other.end());
		}
		}
	}
	if (input.size() > kMaxInput)
		input.resize(kMaxInput);
}

} // namespace

int main(int argc, char **argv)
{
	if (LLVMFuzzerInitialize)
		LLVMFuzzerInitialize(&argc, &argv);
	if (__sanitizer_set_death_callback)
		__sanitizer_set_death_callback(print_current);
	std::vector<Input> corpus = read_corpus(argc, argv);
	size_t files = corpus.size();
	corpus.push_back(Input());
	for (const Input &input : corpus)
		run(input);
	std::mt19937 random(20260101);
	for (size_t i = 0; i < kMutationsPerTarget; i++) {
		Input input = corpus[random() % corpus.size()];
		mutate(input, corpus, random);
		run(input);
	}
	std::printf("%s: %zu corpus files and %zu mutations\n", std::filesystem::path(argv[0]).filename().c_str(), files,
	            kMutationsPerTarget);
	return 0;
}
