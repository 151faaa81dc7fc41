/* Trains the network of digits.py for ten steps and classifies with it, without Python.
 *
 *   tgc compile examples/digits.py -o build
 *   cc examples/digits.c -I build build/digits.o -pthread -o build/digits      (or: build/libdigits.so)
 *   build/digits images.bin labels.bin probabilities.bin
 *
 * images.bin holds 32 images of 8 x 8 floats, labels.bin 32 int64, probabilities.bin gets 32 x 10 floats. */
#include <stdio.h>
#include <stdlib.h>

#include "digits.h"

enum { BATCH = 32, STEPS = 10 };

static void check(int32_t error) {
    if (error) exit(fprintf(stderr, "%s\n", digits_error_message(error)));
}

static void transfer(const char *path, const char *mode, void *data, size_t size) {
    FILE *file = fopen(path, mode);
    if (!file || (*mode == 'r' ? fread(data, 1, size, file) : fwrite(data, 1, size, file)) != size || fclose(file))
        exit(fprintf(stderr, "%s cannot be read or written\n", path));
}

int main(int argc, char **argv) {
    static float images[BATCH][8 * 8], probabilities[BATCH][10], loss;
    static int64_t labels[BATCH];
    if (argc != 4) return fprintf(stderr, "usage: digits IMAGES LABELS PROBABILITIES\n");
    transfer(argv[1], "rb", images, sizeof images);
    transfer(argv[2], "rb", labels, sizeof labels);

    void *state = aligned_alloc(64, digits_state_size());
    int64_t training = digits_train_step_workspace(BATCH, 1), inference = digits_predict_workspace(BATCH, 1);
    void *workspace = malloc(training > inference ? training : inference);
    check(digits_init(state, digits_state_size()));
    for (int step = 1; step <= STEPS; step++) {
        check(digits_train_step(state, *images, labels, &loss, BATCH, workspace));
        printf("step %2d  loss %.4f\n", step, loss);
    }
    check(digits_predict(state, *images, *probabilities, BATCH, workspace));
    transfer(argv[3], "wb", probabilities, sizeof probabilities);
    free(workspace);
    free(state);
    return 0;
}
