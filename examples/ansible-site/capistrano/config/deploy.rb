lock "~> 3.17"

set :application, "site"
set :deploy_to, "/home/stead/site"
set :keep_releases, 2
# What it does is printed and kept nowhere.
set :format_options, log_file: nil
