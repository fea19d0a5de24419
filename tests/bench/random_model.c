/* random_model.c - writes a q8 model file with random weights: good for measuring cost, predicts
 * nothing.
 *     cc -O2 -pthread tests/bench/random_model.c -o random_model -lm
 *     ./random_model OUT.mb [NAME=NUMBER ...]         the names and their defaults stand in main */
#define MEGABYTE_API static __attribute__((unused))
#include "../../megabyte.c"
#include "../random_model.h"

int main(int argc, char **argv) {
    enum {
        PATCHES,
        PATCH,
        DIM,
        LAYERS,
        HEADS,
        HEAD,
        FF,
        LOCAL_DIM,
        LOCAL_LAYERS,
        LOCAL_HEADS,
        LOCAL_HEAD,
        LOCAL_FF,
        SEED,
        NUMBERS
    };
    static const char *const names[NUMBERS] = {
        "patches",   "patch",        "dim",         "layers",     "heads",    "head", "ff",
        "local_dim", "local_layers", "local_heads", "local_head", "local_ff", "seed"};
    u32 n[NUMBERS] = {131072, 8, 256, 4, 4, 64, 4, 128, 2, 2, 64, 4, 1}; /* ff: times dim */
    megabyte_error error = {MEGABYTE_OK, 0, ""};
    size_t size = 0;
    for (int i = 2; i < argc; i++) {
        int at = 0;
        size_t length = strcspn(argv[i], "=");
        while (at < NUMBERS && (strlen(names[at]) != length || strncmp(names[at], argv[i], length)))
            at++;
        if (at == NUMBERS || sscanf(argv[i] + length, "=%u", &n[at]) != 1) argc = 0;
    }
    if (argc < 2) {
        fprintf(stderr, "usage: random_model OUT.mb [NAME=NUMBER ...]; the names:");
        for (int i = 0; i < NUMBERS; i++) fprintf(stderr, " %s", names[i]);
        fprintf(stderr, "\n");
        return 2;
    }
    struct sizes z = random_sizes(n[PATCHES], n[PATCH], n[DIM], n[LAYERS], n[HEADS], n[HEAD],
                                  n[LOCAL_DIM], n[LOCAL_LAYERS], n[LOCAL_HEADS], n[LOCAL_HEAD]);
    z.stage[0].ff_dim = n[FF] * n[DIM];
    z.stage[1].ff_dim = n[LOCAL_FF] * n[LOCAL_DIM];
    u8 *file = random_model(&z, n[SEED], &size, &error);
    if (!file) return fprintf(stderr, "random_model: %s\n", error.text), 1;
    FILE *out = fopen(argv[1], "wb");
    int written = out && fwrite(file, 1, size, out) == size;
    if (out && fclose(out)) written = 0;
    libc_free(NULL, file, size);
    if (!written) return fprintf(stderr, "random_model: %s cannot be written\n", argv[1]), 1;
    return 0;
}
