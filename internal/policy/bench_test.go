package policy

import "testing"

func benchmarkDecide(b *testing.B, environment string, builds ...build) {
	set := defaultSet(b)
	q := ask(environment)
	items := make([]item, len(builds))
	for i, build := range builds {
		items[i] = build.item(b)
	}
	b.ReportAllocs()
	for b.Loop() {
		set.decide(&q, items)
	}
}

func BenchmarkDecideAllow(b *testing.B) { benchmarkDecide(b, "prod", build{}) }
func BenchmarkDecideAllowDev(b *testing.B) {
	benchmarkDecide(b, "dev", build{Builder: dev, Sandbox: true})
}
func BenchmarkDecideDeny(b *testing.B) {
	benchmarkDecide(b, "prod", build{Builder: dev, Sandbox: true})
}
func BenchmarkDecideNoAttestation(b *testing.B) { benchmarkDecide(b, "prod") }
func BenchmarkDecideEight(b *testing.B) {
	builds := make([]build, 8)
	for i := range builds {
		builds[i].LogIndex = int64(i)
	}
	benchmarkDecide(b, "prod", builds...)
}

func BenchmarkCompileDefault(b *testing.B) {
	for b.Loop() {
		defaultSet(b)
	}
}
