//! Examples in the help of `stead box`.

pub(super) const ADD: &str = "\
Examples:
  stead box add debian/12                          Fetch a box of the catalogue
  stead box add ./web.box.tar.zst --name shop/web  Import a file, under a name of your own";

pub(super) const UPDATE: &str = "\
Examples:
  stead box update            Update all boxes of the project
  stead box update debian/12  Update one box";

pub(super) const PUSH: &str = "\
Examples:
  stead box push shop-web oci://registry.example.org/team/web:1.0";

pub(super) const PULL: &str = "\
Examples:
  stead box pull oci://registry.example.org/team/web:1.0";

pub(super) const LIST: &str = "\
Examples:
  stead box list              List the boxes in the store
  stead box list --available  List the boxes that can be fetched";

pub(super) const SHOW: &str = "\
Examples:
  stead box show debian-12";

pub(super) const BUILD: &str = "\
Examples:
  stead box build debian-12                          Build a recipe of stead's own
  stead box build ./recipe --output web.box.tar.zst  Build your own, into an archive";

pub(super) const VERIFY: &str = "\
Examples:
  stead box verify            Check all boxes in the store
  stead box verify debian-12  Check one box";

pub(super) const REMOVE: &str = "\
Examples:
  stead box remove web:1.0";
