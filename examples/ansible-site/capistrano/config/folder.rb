require "capistrano/scm/plugin"

# Sends the folder `app` in place of a checkout, so that no repository has to be reached.
class Folder < Capistrano::SCM::Plugin
  def define_tasks
    namespace :folder do
      task :create_release do
        on release_roles(:all) do
          execute :mkdir, "-p", release_path
          Dir["app/*"].each { |path| upload! path, release_path.to_s, recursive: true }
        end
      end
      task(:set_current_revision) { set :current_revision, "app" }
    end
  end

  def register_hooks
    after "deploy:new_release_path", "folder:create_release"
    before "deploy:set_current_revision", "folder:set_current_revision"
  end
end
