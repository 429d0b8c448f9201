package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMisuse(t *testing.T) {
	data := t.TempDir()
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"nothing":             {nil, "usage"},
		"argument":            {[]string{"--data", data, "x"}, "usage"},
		"unknown flag":        {[]string{"--data", data, "--public"}, "-public"},
		"all interfaces":      {[]string{"--data", data, "--listen", "0.0.0.0:0"}, "NOT_LOOPBACK"},
		"all interfaces, v6":  {[]string{"--data", data, "--listen", "[::]:0"}, "NOT_LOOPBACK"},
		"no host":             {[]string{"--data", data, "--listen", ":8780"}, "NOT_LOOPBACK"},
		"a name":              {[]string{"--data", data, "--listen", "example.com:0"}, "NOT_LOOPBACK"},
		"looks like loopback": {[]string{"--data", data, "--listen", "127.0.0.1.example.com:0"}, "NOT_LOOPBACK"},
		"no port":             {[]string{"--data", data, "--listen", "127.0.0.1"}, "NOT_LOOPBACK"},
		"entry format":        {[]string{"--data", data, "--listen", "127.0.0.1:0", "--entry-format", "x"}, "CONFIG_INVALID"},
	} {
		t.Run(name, func(t *testing.T) {
			var errs bytes.Buffer
			if code := run(t.Context(), tt.args, io.Discard, &errs); code != 2 || !strings.Contains(errs.String(), tt.want) {
				t.Errorf("exit %d, want 2 with %q:\n%s", code, tt.want, &errs)
			}
		})
	}
}

// TestEnvFile: the file is there, private, and complete when the program says
// that it serves.
func TestEnvFile(t *testing.T) {
	data := t.TempDir()
	ctx, stop := context.WithCancel(t.Context())
	r, w := io.Pipe()
	code := make(chan int, 1)
	go func() { code <- run(ctx, []string{"--data", data, "--listen", "127.0.0.1:0"}, w, io.Discard) }()
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil || !strings.Contains(line, "level 0") {
		t.Fatalf("%q, %v", line, err)
	}
	go func() { _, _ = io.Copy(io.Discard, r) }()
	path := filepath.Join(data, "dev.env")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("dev.env has mode %s; it holds a token", info.Mode())
	}
	env, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ASSAY_SERVER", "ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN", "GITHUB_ACTIONS", "GITHUB_REPOSITORY"} {
		if !strings.Contains(string(env), "export "+name+"='") {
			t.Errorf("dev.env does not export %s", name)
		}
	}
	stop()
	if c := <-code; c != 0 {
		t.Errorf("exit %d after a clean stop", c)
	}
}
