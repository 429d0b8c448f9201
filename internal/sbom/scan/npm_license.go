package scan

import "github.com/go-json-experiment/json/jsontext"

// npmLicenses gives the licence of a package.json. A list, which npm took before it
// knew SPDX expressions, offers a choice.
func npmLicenses(license, licenses npmLicense) []string {
	if len(license) == 0 {
		license = licenses
	}
	return licenseChoice(sortedUnique(normalLicenses(license)))
}

// npmLicense collects the texts of "license" and "licenses" in all their historical
// forms: a string, an object with type and url, an array of both.
type npmLicense []string

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (l *npmLicense) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	*l = nil
	value, err := dec.ReadValue()
	if err != nil {
		return err
	}
	if value.Kind() != '[' {
		*l = licenseTerm(nil, value)
		return nil
	}
	var list []jsontext.Value
	if err := decodeLoose(value, &list); err != nil {
		return err
	}
	for _, one := range list {
		*l = licenseTerm(*l, one)
	}
	return nil
}

func licenseTerm(terms []string, value jsontext.Value) []string {
	var text looseString
	if value.Kind() != '{' {
		if decodeLoose(value, &text) == nil && text != "" {
			terms = append(terms, string(text))
		}
		return terms
	}
	var object struct {
		Type looseString `json:"type"`
		Name looseString `json:"name"`
		URL  looseString `json:"url"`
	}
	if decodeLoose(value, &object) != nil {
		return terms
	}
	for _, text := range []looseString{object.Type, object.Name, object.URL} {
		if text != "" {
			return append(terms, string(text))
		}
	}
	return terms
}
