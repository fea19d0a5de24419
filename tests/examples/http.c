/* http.c - a web server (libmicrohttpd) that sends text while the model writes it, to many clients
 * at once: one model for all, a thread and a stream for each.
 *
 *     cc -O2 http.c megabyte.c -lmicrohttpd -lm -pthread && ./a.out text.mb 8080
 *     curl -N 'http://localhost:8080/?prompt=It+was&bytes=300&seed=7'
 *
 * SPDX-License-Identifier: MIT */
#include "megabyte.h"
#include <arpa/inet.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CLIENTS = 16 }; /* at once; each takes what megabyte_stream_size says: 21 MB with text.mb */

typedef struct answer {
    megabyte_stream *stream;
    megabyte_sampling sampling;
    unsigned long long left; /* bytes to write */
} answer;

static void end(void *context) { /* also when the client has gone */
    if (context) megabyte_stream_free(((answer *)context)->stream);
    free(context);
}

static ssize_t chunk(void *context, uint64_t position, char *out, size_t capacity) {
    answer *a = context;
    size_t n = capacity < 16 ? capacity : 16;
    (void)position;
    if (n > a->left) n = (size_t)a->left;
    a->left -= n;
    if (megabyte_stream_generate(a->stream, &a->sampling, (uint8_t *)out, n, &n, NULL, NULL))
        a->left = 0; /* the model ends its text */
    return n ? (ssize_t)n : MHD_CONTENT_READER_END_OF_STREAM;
}

static const char *argument(struct MHD_Connection *c, const char *key, const char *otherwise) {
    const char *value = MHD_lookup_connection_value(c, MHD_GET_ARGUMENT_KIND, key);
    return value ? value : otherwise;
}

static enum MHD_Result request(void *model, struct MHD_Connection *c, const char *path,
                               const char *method, const char *version, const char *data,
                               size_t *n_data, void **state) {
    const char *prompt = argument(c, "prompt", "");
    answer *a = calloc(1, sizeof *a);
    (void)path, (void)version, (void)data, (void)n_data, (void)state;
    if (!a || strcmp(method, "GET") || megabyte_stream_create(&a->stream, model, NULL, NULL, NULL))
        return end(a), MHD_NO; /* hangs up */
    a->left = strtoull(argument(c, "bytes", "200"), NULL, 10);
    a->sampling = (megabyte_sampling){.temperature = 0.7f, .top_p = 0.95f};
    a->sampling.seed = strtoull(argument(c, "seed", "1"), NULL, 10);
    megabyte_stream_feed(a->stream, prompt, strlen(prompt));
    /* of unknown size: HTTP's chunks */
    struct MHD_Response *r = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 64, chunk, a, end);
    if (!r) return end(a), MHD_NO;
    MHD_add_response_header(r, "Content-Type", "text/plain; charset=utf-8");
    enum MHD_Result result = MHD_queue_response(c, MHD_HTTP_OK, r);
    return MHD_destroy_response(r), result;
}

int main(int argc, char **argv) {
    megabyte_model *model;
    megabyte_error error;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    if (argc != 3) return puts("usage: http MODEL PORT"), 2;
    if (megabyte_model_open(&model, argv[1], NULL, &error)) return puts(error.text), 1;
    at.sin_port = htons((uint16_t)atoi(argv[2])); /* 0: any */
    struct MHD_Daemon *server = MHD_start_daemon(
        MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION, 0, NULL, NULL, request,
        model, MHD_OPTION_SOCK_ADDR, &at, MHD_OPTION_CONNECTION_LIMIT, CLIENTS, MHD_OPTION_END);
    if (!server) return perror("http"), 1;
    printf("port %u\n", MHD_get_daemon_info(server, MHD_DAEMON_INFO_BIND_PORT)->port);
    fflush(stdout);
    for (;;) pause(); /* Ctrl-C ends it */
}
