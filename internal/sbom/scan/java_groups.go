package scan

import (
	"strings"

	"github.com/google/osv-scalibr/extractor/filesystem/language/java/groupid"
)

// knownGroup is the group of packages that are common, are not built by Maven and so carry
// no descriptor, and whose manifests do not name it. "" where nothing is known. It is
// asked only for jars that nothing else names.
func knownGroup(artifact string) string {
	if group := groupid.FromArtifactID(artifact); group != "" {
		return group
	}
	for _, known := range [...]struct{ prefix, group string }{ // the longer before the shorter
		{"spring-boot", "org.springframework.boot"},
		{"spring-security-", "org.springframework.security"},
		{"spring-data-", "org.springframework.data"},
		{"spring-batch-", "org.springframework.batch"},
		{"spring-integration-", "org.springframework.integration"},
		{"spring-session-", "org.springframework.session"},
		{"spring-cloud-", "org.springframework.cloud"},
		{"spring-kafka", "org.springframework.kafka"},
		{"spring-amqp", "org.springframework.amqp"},
		{"spring-rabbit", "org.springframework.amqp"},
		{"spring-ldap-", "org.springframework.ldap"},
		{"spring-hateoas", "org.springframework.hateoas"},
		{"spring-retry", "org.springframework.retry"},
		{"spring-ws-", "org.springframework.ws"},
		{"reactor-netty", "io.projectreactor.netty"},
		{"reactor-kafka", "io.projectreactor.kafka"},
		{"reactor-", "io.projectreactor"},
		{"micrometer-", "io.micrometer"},
		{"tomcat-embed-", "org.apache.tomcat.embed"},
		{"tomcat-", "org.apache.tomcat"},
		{"kotlinx-", "org.jetbrains.kotlinx"},
		{"kotlin-", "org.jetbrains.kotlin"},
		{"junit-jupiter", "org.junit.jupiter"},
		{"junit-platform-", "org.junit.platform"},
		{"mockito-", "org.mockito"},
		{"guice-", "com.google.inject.extensions"},
		{"okhttp", "com.squareup.okhttp3"},
		{"okio", "com.squareup.okio"},
	} {
		if strings.HasPrefix(artifact, known.prefix) {
			return known.group
		}
	}
	switch artifact {
	case "spring-core", "spring-beans", "spring-context", "spring-context-support", "spring-context-indexer", "spring-aop",
		"spring-aspects", "spring-expression", "spring-instrument", "spring-jcl", "spring-jdbc", "spring-jms",
		"spring-messaging", "spring-orm", "spring-oxm", "spring-r2dbc", "spring-test", "spring-tx":
		return "org.springframework"
	case "asm", "asm-analysis", "asm-commons", "asm-tree", "asm-util":
		return "org.ow2.asm"
	case "jsr305":
		return "com.google.code.findbugs"
	case "lombok":
		return "org.projectlombok"
	case "h2":
		return "com.h2database"
	case "guice":
		return "com.google.inject"
	}
	return ""
}
