package scan

import (
	"slices"
	"strings"
	"testing"
)

func TestPOM(t *testing.T) {
	t.Parallel()
	inv := scanned(t, "src.tar", tarOf(t, inMemory{
		"pom.xml": `<project>
			<groupId>com.example</groupId><artifactId>parent</artifactId><version>2.0</version><packaging>pom</packaging>
			<licenses><license><name>Apache License, Version 2.0</name></license></licenses>
			<properties><jackson>2.15.0</jackson><revision>7</revision></properties>
			<dependencyManagement><dependencies>
				<dependency><groupId>com.fasterxml</groupId><artifactId>jackson</artifactId><version>${jackson}</version></dependency>
				<dependency><groupId>junit</groupId><artifactId>junit</artifactId><version>4.13</version><scope>test</scope></dependency>
			</dependencies></dependencyManagement>
			<dependencies><dependency><groupId>org.slf4j</groupId><artifactId>slf4j-api</artifactId><version>[2.0.7]</version></dependency></dependencies>
		</project>`,
		"web/pom.xml": `<project>
			<parent><groupId>com.example</groupId><artifactId>parent</artifactId><version>2.0</version></parent>
			<artifactId>web</artifactId>
			<dependencies>
				<dependency><groupId>com.fasterxml</groupId><artifactId>jackson</artifactId></dependency>
				<dependency><groupId>junit</groupId><artifactId>junit</artifactId></dependency>
				<dependency><groupId>${project.groupId}</groupId><artifactId>core</artifactId><version>${project.version}</version></dependency>
				<dependency><groupId>javax</groupId><artifactId>servlet</artifactId><version>3</version><scope>provided</scope></dependency>
			</dependencies>
		</project>`,
		"web/src/main/resources/archetype-resources/pom.xml": "<project><groupId>x</groupId><artifactId>y</artifactId><version>1</version></project>",
		"META-INF/maven/a/b/pom.xml":                         "<project><groupId>x</groupId><artifactId>y</artifactId><version>1</version></project>",
	}))
	checkOutline(t, inv, `
		pkg:maven/com.example/core@2.0 required
		pkg:maven/com.example/parent@2.0 application {Apache-2.0} > pkg:maven/org.slf4j/slf4j-api@2.0.7
		pkg:maven/com.example/web@2.0 application {Apache-2.0} > pkg:maven/com.example/core@2.0 pkg:maven/com.fasterxml/jackson@2.15.0 pkg:maven/javax/servlet@3 pkg:maven/junit/junit@4.13 pkg:maven/org.slf4j/slf4j-api@2.0.7
		pkg:maven/com.fasterxml/jackson@2.15.0 required
		pkg:maven/javax/servlet@3 optional
		pkg:maven/junit/junit@4.13 excluded
		pkg:maven/org.slf4j/slf4j-api@2.0.7 required`,
		"pkg:maven/com.example/parent@2.0", "pkg:maven/com.example/web@2.0")
}

// What a pom leaves to poms elsewhere is missing, and the inventory says so.
func TestPOMUnresolved(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"", "<version>${x}</version>", "<version>[1,2)</version>", "<version>LATEST</version>"} {
		inv := scanned(t, "pom.xml", []byte(`<project><groupId>g</groupId><artifactId>a</artifactId><version>1</version>
			<dependencies><dependency><groupId>o</groupId><artifactId>x</artifactId>`+version+`</dependency>
			<dependency><groupId>o</groupId><artifactId>y</artifactId><version>2</version></dependency></dependencies></project>`))
		checkOutline(t, inv, `
			pkg:maven/g/a@1 application > pkg:maven/o/y@2
			pkg:maven/o/y@2 required`)
		if want := []string{"unsupported pom.xml"}; !slices.Equal(reasonsOf(inv), want) {
			t.Errorf("%s: %q, want %q", version, reasonsOf(inv), want)
		}
	}
}

// Properties that stand for each other, and grow, end.
func TestPOMHostile(t *testing.T) {
	t.Parallel()
	var props strings.Builder
	for i := range 30 {
		next := string(rune('a' + (i+1)%26))
		props.WriteString("<" + string(rune('a'+i%26)) + ">${" + next + "}${" + next + "}</" + string(rune('a'+i%26)) + ">")
	}
	inv := scanned(t, "pom.xml", []byte(`<project><groupId>g</groupId><artifactId>${a}</artifactId><version>1</version>
		<parent><groupId>g</groupId><artifactId>p</artifactId><version>1</version><relativePath>pom.xml</relativePath></parent>
		<properties>`+props.String()+`</properties></project>`))
	if len(inv.Components) != 0 {
		t.Errorf("found %q", outline(inv))
	}
	for _, relative := range []string{"../../../../etc/pom.xml", "/etc/pom.xml", "..", "."} {
		inv := scanned(t, "pom.xml", []byte(`<project><parent><groupId>g</groupId><artifactId>p</artifactId><version>1</version><relativePath>`+relative+`</relativePath></parent><artifactId>a</artifactId></project>`))
		checkOutline(t, inv, "pkg:maven/g/a@1 application")
	}
}

func TestRepositoryPOM(t *testing.T) {
	t.Parallel()
	jar := string(zipOf(t, inMemory{"a/B.class": "x"}))
	pom := func(artifact, parent, rest string) string {
		return "<project>" + parent + "<groupId>org.example</groupId><artifactId>" + artifact + "</artifactId><version>1.0</version>" + rest + "</project>"
	}
	inv := scanned(t, "repo.tar", tarOf(t, inMemory{
		"r/org/example/a/1.0/a-1.0.jar": jar,
		"r/org/example/a/1.0/a-1.0.pom": pom("a", "<parent><groupId>org.example</groupId><artifactId>up</artifactId><version>1.0</version></parent>",
			"<dependencies><dependency><groupId>org.example</groupId><artifactId>b</artifactId></dependency></dependencies>"),
		"r/org/example/b/1.0/b-1.0.jar":   jar,
		"r/org/example/b/1.0/b-1.0.pom":   pom("b", "", ""),
		"r/org/example/up/1.0/up-1.0.pom": pom("up", "", "<licenses><license><name>custom</name><url>https://www.eclipse.org/legal/epl-2.0</url></license></licenses>"),
	}))
	checkOutline(t, inv, `
		pkg:maven/org.example/a@1.0 {EPL-2.0} SHA-1 SHA-256 > pkg:maven/org.example/b@1.0
		pkg:maven/org.example/b@1.0 SHA-1 SHA-256`, "pkg:maven/org.example/a@1.0")
}

func FuzzPOM(f *testing.F) {
	fuzzReaders(f, "pom.xml", guicePOM, "<project><parent/><properties><a>${b}</a><b>${a}</b></properties><version>${a}</version></project>", "<!DOCTYPE x [<!ENTITY a 'b'>]><project>&a;</project>")
}
