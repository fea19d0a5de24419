// raii.cpp - megabyte in C++: objects free themselves, failures are exceptions. Take the namespace
// into your program as it is; megabyte.c itself is compiled as C.
//     cc -O2 -c megabyte.c && c++ -std=c++17 raii.cpp megabyte.o -lm && ./a.out text.mb
// SPDX-License-Identifier: MIT
#include "megabyte.h"
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>

namespace megabyte {
struct error : std::runtime_error {
    megabyte_status status;
    error(megabyte_status s, const std::string &text) : std::runtime_error(text), status(s) {}
};

inline void check(megabyte_status status, const megabyte_error *details = nullptr) {
    if (status < 0) throw error(status, details ? details->text : megabyte_status_string(status));
}

class model { // copies share one model, which lives as long as any of them
    std::shared_ptr<megabyte_model> handle;

  public:
    explicit model(const std::string &path) {
        megabyte_model *opened;
        megabyte_error details;
        check(megabyte_model_open(&opened, path.c_str(), nullptr, &details), &details);
        handle.reset(opened, megabyte_model_close);
    }
    const megabyte_model *get() const { return handle.get(); }
};

class stream {
    model of; // declared first: it outlives the stream
    struct closer {
        void operator()(megabyte_stream *s) const { megabyte_stream_free(s); }
    };
    std::unique_ptr<megabyte_stream, closer> handle;

  public:
    explicit stream(model m, const megabyte_stream_options &options = {}) : of(std::move(m)) {
        megabyte_stream *created;
        megabyte_error details;
        check(megabyte_stream_create(&created, of.get(), &options, nullptr, &details), &details);
        handle.reset(created);
    }
    void feed(std::string_view bytes) {
        check(megabyte_stream_feed(handle.get(), bytes.data(), bytes.size()));
    }
    double score(std::string_view bytes) { // in bits
        double bits = 0;
        check(megabyte_stream_score(handle.get(), bytes.data(), bytes.size(), &bits, nullptr));
        return bits;
    }
    std::string generate(std::size_t n, megabyte_sampling &sampling) {
        std::string text(n, '\0');
        check(megabyte_stream_generate(handle.get(), &sampling,
                                       reinterpret_cast<uint8_t *>(text.data()), n, &n, nullptr,
                                       nullptr));
        return text.substr(0, n);
    }
};
} // namespace megabyte

int main(int argc, char **argv) try {
    megabyte::stream stream(megabyte::model(argc > 1 ? argv[1] : "models/text.mb"));
    megabyte_sampling sampling = {};
    sampling.temperature = 0.7f, sampling.top_p = 0.95f, sampling.seed = 1;
    stream.feed("It was a dark and stormy night");
    std::cout << stream.generate(100, sampling);
} catch (const megabyte::error &e) {
    std::cerr << e.what() << '\n';
    return 1;
}
