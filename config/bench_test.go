package config

import "testing"

func BenchmarkLoad(b *testing.B) {
	path := write(b, map[string]string{FileName: issueExample})
	for b.Loop() {
		if _, err := Load(path, LoadOptions{Home: "/home/user"}); err != nil {
			b.Fatal(err)
		}
	}
}
